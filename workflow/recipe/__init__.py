"""What is wanted: the recipe's models, strict loading, and errors with a place."""

from workflow.recipe.load import load_recipe, recipe_path
from workflow.recipe.recipe import Recipe

__all__ = ["Recipe", "load_recipe", "recipe_path"]
