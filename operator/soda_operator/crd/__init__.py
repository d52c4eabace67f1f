"""The CustomResourceDefinition, made from the models. Pure: nothing in, plain data or text out."""

from soda_operator.crd.definition import definition, render

__all__ = ["definition", "render"]
