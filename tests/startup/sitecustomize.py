"""Run by every Python process that has this folder on its path: worker processes of a test talk as the test's own does."""

import os

if os.environ.get("HF_EVOL_TESTS_TALKATIVE"):
    import talkative

    talkative.talk()
