// The table of predictions. Everything is written as text, never as HTML; rows come from the page's own JSON.
"use strict";
(() => {
  const PAGE = 25, TOO_LONG = 4e6;
  const root = document.getElementById("browser");
  if (!root) return;
  const rows = JSON.parse(document.getElementById("rows").textContent);
  const of = (row, role) => row.answers.find((answer) => answer.role === role);
  const first = (row) => of(row, "greedy") || of(row, "predictions");
  const final = (row) => row.vote || first(row);
  const READ = root.dataset.read === "yes";  // answers are read out of the texts
  const said = (answer) => READ ? answer.answer : answer.text;
  const both = (row, test) => of(row, "base") && of(row, "greedy") && test(of(row, "base"), of(row, "greedy"));
  const FILTERS = {
    all: ["all rows", () => true],
    right: ["right", (row) => final(row).right === true],
    wrong: ["wrong", (row) => final(row).right === false],
    abstained: ["no answer", (row) => READ && final(row).answer === null],
    tied: ["tied votes", (row) => row.vote && row.vote.tie],
    cut: ["cut at max_tokens", (row) => row.answers.some((answer) => answer.cut)],
    changed: ["changed by tuning", (row) => both(row, (base, tuned) => said(base) !== said(tuned))],
    gained: ["put right by tuning", (row) => both(row, (base, tuned) => base.right === false && tuned.right)],
    lost: ["put wrong by tuning", (row) => both(row, (base, tuned) => base.right && tuned.right === false)],
    rescued: ["put right by voting", (row) => row.vote && row.vote.right && of(row, "predictions").right === false],
  };

  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined && text !== null) element.textContent = text;
    return element;
  };
  const put = (parent, ...children) => { parent.append(...children); return parent; };
  const isolated = (tag, name, text) => { const made = make(tag, name, text); made.dir = "auto"; return made; };

  const tokens = (text) => text.match(/\p{Script=Han}|[\p{L}\p{N}]+|\s+|[^]/gu) || [];
  // The longest common subsequence of two lists, as steps [kind, token]: "" in both, "-" only in the first.
  const steps = (a, b) => {
    const wide = b.length + 1, best = new Uint16Array((a.length + 1) * wide), found = [];
    for (let i = a.length - 1; i >= 0; i--)
      for (let j = b.length - 1; j >= 0; j--)
        best[i * wide + j] = a[i] === b[j] ? best[(i + 1) * wide + j + 1] + 1
          : Math.max(best[(i + 1) * wide + j], best[i * wide + j + 1]);
    let i = 0, j = 0;
    while (i < a.length || j < b.length) {
      if (i < a.length && j < b.length && a[i] === b[j]) { found.push(["", a[i++]]); j++; }
      else if (j >= b.length || (i < a.length && best[(i + 1) * wide + j] >= best[i * wide + j + 1])) found.push(["-", a[i++]]);
      else found.push(["+", b[j++]]);
    }
    return found;
  };
  const difference = (gold, text) => {
    const a = tokens(gold), b = tokens(text);
    if (a.length * b.length > TOO_LONG) return make("div", "soft", "too long to compare");
    const shown = isolated("div", "text diff");
    let kind = null, held = "";
    const flush = () => { if (held) shown.append(kind ? make(kind === "-" ? "del" : "ins", "", held) : held); held = ""; };
    for (const [next, token] of steps(a, b)) {
      if (next !== kind) { flush(); kind = next; }
      held += token;
    }
    flush();
    return shown;
  };
  const nearest = (golds, text) => golds.includes(text) ? null : golds[0];

  const mark = (right) => right === true ? make("span", "good", " ✓") : right === false ? make("span", "bad", " ✗") : "";
  const short = (text, most) => text.length > most ? text.slice(0, most) + "…" : text;
  const cell = (answer) => {
    const td = make("td");
    if (!answer) return td;
    const value = said(answer);
    return put(td, value === null ? make("span", "soft", "no answer") : isolated("span", "", short(value, 80)), mark(answer.right));
  };
  const gold = (row) => isolated("td", "", short(row.gold.join(" / "), 80));

  const given = (row, answer) => {
    const box = put(make("div", "answer"), put(make("h4", "", answer.label + (answer.answer === null || answer.answer === answer.text ? "" : ": " + short(answer.answer, 80))), mark(answer.right)));
    box.append(isolated("div", "text", answer.text));
    if (answer.cut) box.append(make("div", "soft", "cut at max_tokens"));
    const text = said(answer), target = text === null || !row.gold.length ? null : nearest(row.gold, text);
    if (target !== null) put(box, make("div", "soft", "gold → answer:"), difference(target, text));
    return box;
  };
  const detail = (row) => {
    const box = make("div", "detail"), asked = make("dl", "prompt"), answers = make("div", "answers");
    for (const [name, text] of row.prompt) put(asked, make("dt", "", name), isolated("dd", "text", text));
    for (const text of row.gold) put(asked, make("dt", "", "gold"), isolated("dd", "text", text));
    for (const answer of row.answers) answers.append(given(row, answer));
    put(box, asked, answers);
    if (row.others)
      box.append(isolated("p", "soft", "Other draws: " + row.others.map((answer) => answer ?? "no answer").join(", ")));
    if (row.vote) {
      const votes = Object.entries(row.vote.votes).map(([answer, count]) => `${answer}: ${count}`).join(", ");
      box.append(put(make("p", "", `Vote: ${row.vote.answer === null ? "no answer" : row.vote.answer}`), mark(row.vote.right),
        make("span", "soft", ` (${votes}${votes ? ", " : ""}without an answer: ${row.vote.abstentions}${row.vote.tie ? "; tied" : ""})`)));
    }
    const values = Object.entries(row.values || {});
    if (values.length) {
      const text = ([metric, systems]) => `${metric}: ` + Object.entries(systems).map(([name, value]) => `${name} ${+value.toFixed(4)}`).join(", ");
      box.append(make("p", "soft", values.map(text).join("; ")));
    }
    return box;
  };

  const COLUMNS = [["row", null], ["gold", null]];
  if (rows.some((row) => of(row, "base"))) COLUMNS.push(["base", (row) => of(row, "base")]);
  if (rows.some((row) => of(row, "greedy"))) COLUMNS.push(["this model", (row) => of(row, "greedy")]);
  if (rows.some((row) => row.vote)) COLUMNS.push(["vote", (row) => row.vote]);
  else COLUMNS.push(["draw 1", (row) => of(row, "predictions")]);

  const filter = make("select"), order = make("select"), search = make("input"), count = make("span", "soft");
  for (const [name, [label, test]] of Object.entries(FILTERS)) {
    const size = rows.filter(test).length;
    if (size) filter.append(new Option(`${label} (${size.toLocaleString("en")})`, name));
  }
  order.append(new Option("by id", ""));
  for (const metric of Object.keys((rows.find((row) => row.values) || { values: {} }).values))
    order.append(new Option(`lowest ${metric} first`, metric));
  search.type = "search"; search.placeholder = "search"; search.setAttribute("aria-label", "search in rows");
  filter.setAttribute("aria-label", "which rows"); order.setAttribute("aria-label", "order");
  count.setAttribute("role", "status");
  const back = make("button", "", "‹"), on = make("button", "", "›"), place = make("span", "soft");
  back.setAttribute("aria-label", "page before"); on.setAttribute("aria-label", "next page");
  const table = make("table"), head = make("tr"), body = make("tbody");
  for (const [name] of COLUMNS) head.append(make("th", "", name));
  put(table, put(make("thead"), head), body);
  const controls = put(make("div", "controls"), filter, ...(order.length > 1 ? [order] : []), search, count);
  put(root, controls, put(make("div", "wide"), table), put(make("div", "controls"), back, place, on));

  const line = (row) => {
    const tr = make("tr"), opener = isolated("button", "key", row.id), below = make("tr");
    opener.setAttribute("aria-expanded", "false");
    put(tr, put(make("td"), opener), gold(row));
    for (const [, value] of COLUMNS.slice(2)) tr.append(cell(value(row)));
    below.hidden = true;
    opener.addEventListener("click", () => {
      if (!below.firstChild) {
        const td = make("td");
        td.colSpan = COLUMNS.length;
        put(below, put(td, detail(row)));
      }
      below.hidden = !below.hidden;
      opener.setAttribute("aria-expanded", String(!below.hidden));
    });
    return [tr, below];
  };
  const value = (row) => {
    const systems = ((row.values || {})[order.value]) || {};
    return systems.greedy ?? systems.voted ?? systems.draws ?? Infinity;
  };
  const searched = (row) => row.searched ??= JSON.stringify([row.id, row.gold, row.prompt, row.answers.map((a) => a.text)]).toLowerCase();
  let chosen = [], page = 0;
  const show = () => {
    const pages = Math.max(1, Math.ceil(chosen.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    body.replaceChildren(...chosen.slice(page * PAGE, (page + 1) * PAGE).flatMap(line));
    count.textContent = `${chosen.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
    place.textContent = `page ${page + 1} of ${pages}`;
    back.disabled = page === 0;
    on.disabled = page === pages - 1;
  };
  const choose = () => {
    const test = FILTERS[filter.value][1], wanted = JSON.stringify(search.value.toLowerCase()).slice(1, -1);
    chosen = rows.filter((row) => test(row) && (!wanted || searched(row).includes(wanted)));
    if (order.value) chosen.sort((a, b) => value(a) - value(b));
    page = 0;
    show();
  };
  let waiting = 0;
  search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(choose, 120); });
  filter.addEventListener("change", choose);
  order.addEventListener("change", choose);
  back.addEventListener("click", () => { page--; show(); });
  on.addEventListener("click", () => { page++; show(); });
  choose();
})();
