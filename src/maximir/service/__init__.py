"""The HTTP service: `maximir serve`. How to use it: docs/service.md; why so: docs/decisions/0007-service.md.

The service itself (`server`, `app`, `limits`, `queue`) never touches pixels and imports neither torch nor
libvips. All that happens in one other process for each device (`worker`), which may crash and comes back.
"""
