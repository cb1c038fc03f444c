"""Certificates of nodes, directors and operators: who somebody at the other end of a connection is.

identity (role and name in a certificate), authority (a small CA in a directory: the one door to
`cryptography`), contexts (TLS 1.3 by the standard library, both ends named by certificates, files read again
when they change). docs/director.md says how they are used.
"""
