"""The one exception that means "you can mend this": told in a line or two, never with a traceback."""


class UserError(ValueError):
    """A mistake in the user's input. The message names what is wrong and the way out."""
