"""The HTTP routes: decode, call, encode."""
