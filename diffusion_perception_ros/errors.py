"""The one exception for what a user can put right."""


class InputError(ValueError):
    """A file, setting or message that cannot be used. The message names it and says what to do, in one sentence.

    Commands print it and exit with 2; nodes put it into diagnostics and go on with the next frame.
    """
