"""Entry point of ``python -m dataeng.report``."""

from dataeng.recipe import main_with_recipe
from dataeng.report.write import main

main_with_recipe(main)
