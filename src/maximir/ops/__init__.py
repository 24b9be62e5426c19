"""Operators that the network is made of: native kernels where they fit, torch's everywhere else.

`functional` has the operators, `kernels` loads `kernels.cpp`, which is compiled with the package.
"""
