"""The structure predictors."""
