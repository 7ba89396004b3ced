"""An emulator of StackOne: its API, the private API of its Hub, its OAuth popup and its webhooks."""

from sandbox.stackone.application import create_stackone
from sandbox.stackone.project import Project, StackOneConfig

__all__ = ["Project", "StackOneConfig", "create_stackone"]
