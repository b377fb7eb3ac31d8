"""Serves: routes, dialects, access, the studio page and the command line."""
