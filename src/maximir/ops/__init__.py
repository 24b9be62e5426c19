"""Operators that the network is made of: native kernels where they fit, torch's everywhere else.

`functional` has the operators, `kernels` loads `native/`, which is compiled with the package.
"""
