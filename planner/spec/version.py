"""The version of Meshwright; plans carry it."""

VERSION = "0.1.0"
