"""The HTTP service behind `maximir serve`. Usage: docs/service.md; reasons: docs/decisions/0007-service.md.

The serving process (`server`, `app`, `limits`, `queue`) never touches pixels and imports neither torch nor
libvips. One worker process per device (`worker`) does that; it may crash, and is then restarted.
"""
