"""Hierarchical classification: a softmax over the leaves of a tree, with coefficients that lean on their parents'."""
