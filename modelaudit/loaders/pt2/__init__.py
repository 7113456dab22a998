"""torch.export archives (``.pt2``), read without ``torch.export.load``.

That function runs code from the file: it unpickles weights, constants and sample inputs, parses
symbolic sizes with ``sympy.sympify`` (which calls ``eval``), and takes the name of any operator as
a path of attributes from the module ``torch``, so that ``torch.os.system`` is an operator like any
other. Here the graph is data: JSON, whose operators are looked up in a list (``operators``) and
run one after the other (``graph``); sizes are computed from the images, and the only pickles that
are read, those of older archives, go through torch's weights-only reader (``archive``).
"""

from __future__ import annotations

from modelaudit.loaders.pt2.load import load_pt2

__all__ = ["load_pt2"]
