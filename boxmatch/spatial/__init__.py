"""Spatial queries: which priors lie in, near or over a box.

A grid is a spatial index. Every query turns each box into a block of cells per level, by arithmetic on rows
and columns, and lists the priors of all blocks of all boxes and levels in one ragged range. Cost and memory
grow with the number of pairs, never with boxes × priors. All lists are ordered by box, then by prior.

Letters: G boxes of the whole batch (g of one piece of it), L levels, A anchors per cell, P priors, N pairs.
"""
