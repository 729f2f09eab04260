"""The one exception for everything a user can put right."""


class BuildError(Exception):
    """An expected failure: place, reason and remedy in one or two lines.

    The command line prints the message alone, without a traceback, and ends with exit code 2.
    Anything else that is raised is a defect of tunemake and shows its traceback.
    """
