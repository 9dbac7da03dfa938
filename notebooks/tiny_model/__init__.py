"""How the embedded model of `reflectevo_lite` is made: the material of `00_tiny_model.ipynb`."""
