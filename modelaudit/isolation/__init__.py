"""Open and run the suspect model in a process of its own, with limits.

``limits``: what it may use · ``sandbox``: the worker gives up rights · ``worker``: the process ·
``tasks``: what it can do · ``supervisor``: starts and ends it · ``conversation``: watches it.
"""
