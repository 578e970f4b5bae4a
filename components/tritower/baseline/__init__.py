"""The rivals: XGBoost on the standard features, with the cosines, and with everything the triple tower sees."""
