"""The director's HTTP API and web page, in its process and its event loop (SYSTEMS.md S1.14; docs/web.md).

server (TLS, client certificates, bounded connections) -> gate (who is it, how large, is it JSON; every error
as RFC 9457 has it; every change in the audit log) -> api, api_changes, page (routes) -> changing (the one
way to Director.change). watch: what happened, as events; tokens and who: people and programs; metrics.
"""
