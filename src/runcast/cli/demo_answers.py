"""What the demo's language model says: questions, answers, and the tokens they are made of."""

import re

ANSWERS = {
    "What does runcast do?": """\
Your backend starts work that takes a while: a model writes an answer, a video is rendered, a file \
is imported. Somebody sits in front of a page and waits. runcast stands between the two.

Each piece of work is a run, a row in Postgres. Whatever changes in that row, runcast tells \
everybody who may see it: first the run as it is, then each change, until it is finished. There is \
nothing to poll, and nothing to install beside the database that you have.

This text is a stream of such a run. A program is writing it to the gateway at this moment, a few \
letters at a time, and you read along.""",
    "What if I lose my connection?": """\
Try it. Switch your network off while this text grows, wait a little, and switch it on again.

Every part of a stream has an offset: 0, 1, 2, and so on without a gap. Your browser says which \
one it saw last, and the gateway goes on behind it. Nothing is missing, nothing comes twice, and \
no part is torn in two. It does not matter which gateway answers, or whether it was restarted \
meanwhile: what a writer was told is stored, is stored.

The same holds when you come late. Reload this page, and you get all of the text so far at once, \
and then the rest as it is written.""",
    "Who may read this?": """\
Only those who hold a token for it. Your backend has a secret key, which never leaves it; a \
browser gets a small signed token that names what it opens. That may be one run, all runs of a \
user by their tag, those of a task or of a batch.

A token lasts for minutes or hours, as you like. When its time is over the connection ends, in the \
middle of a sentence if need be, and a fresh token goes on from there.

Each run is judged again each time it is sent. Take the tag away from a run, and whoever had only \
that tag sees it no more.""",
}


def tokens_of(text: str) -> list[str]:
    """Cut a text as a language model would have written it; joined they are the text again."""
    return re.findall(r"\s*\S{1,6}", text)
