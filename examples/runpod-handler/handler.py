"""A RunPod handler that lets each order begin once.

Whoever orders from RunPod cannot know what became of an order whose answer was lost: there is no idempotency key, and no
list to look into. So every order carries an intent, and the handler claims it in a bucket before it paints:

  claims/{id}        which job began it; written with `If-None-Match: *`, so that one writer wins
  runs/{id}/N.png    what it made
  runs/{id}/answer   that it is done: the names of its outputs

An order that comes a second time, as another job, gets the first one's outputs, or is refused while there are none. One
that comes too late is refused. A duplicate then costs the seconds of a start, not those of a run.
"""

import datetime
import json
import os
import re
import sys

from bucket import Bucket

URL_SECONDS = 3_600  # how long an output can be fetched; it can be asked for again
TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}


def make_handler(bucket, paint):
    """`paint(input)` returns a list of (extension, bytes). Errors are answered as {"error": words}, or thrown."""

    def handler(job):
        order = dict(job["input"])
        intent = order.pop("intent", None)
        refusal = _malformed(intent)
        if refusal:
            return {"error": f"Invalid input: {refusal}"}
        done = _answer(bucket, intent["id"])
        if done:
            return done
        if _now() > _time(intent["not_after"]):
            return {"error": f"intent refused (late): it was not to begin after {intent['not_after']}"}

        claim = f"claims/{intent['id']}"
        mine = {"job": job["id"], "at": _now().isoformat()}
        if not bucket.put_new(claim, json.dumps(mine).encode(), "application/json"):
            # The same job again: its worker died, and RunPod gave it to us. Nobody else will do it.
            holder = json.loads(bucket.get(claim) or b"{}")
            if holder.get("job") != job["id"]:
                return _answer(bucket, intent["id"]) or {"error": _taken(holder)}

        keys = []
        for position, (extension, image) in enumerate(paint(order)):
            key = f"runs/{intent['id']}/{position}.{extension}"
            bucket.put(key, image, TYPES[extension])
            keys.append(key)
        # Last, so that whoever finds it finds all of it.
        bucket.put(f"runs/{intent['id']}/answer", json.dumps({"job": job["id"], "keys": keys}).encode(), "application/json")
        return _answer(bucket, intent["id"])

    return handler


def _answer(bucket, intent_id):
    stored = bucket.get(f"runs/{intent_id}/answer")
    if stored is None:
        return None
    keys = json.loads(stored)["keys"]
    images = [{"type": "s3_url", "data": bucket.url(key, URL_SECONDS), "filename": key.split("/")[-1]} for key in keys]
    return {"images": images}


def _taken(holder):
    return (
        f"intent refused (taken): job {holder.get('job')} began it at {holder.get('at')} and has stored no answer:"
        " it is still running, or its worker died"
    )


def _malformed(intent):
    if not isinstance(intent, dict):
        return "intent is missing: {id, not_after}"
    if not re.fullmatch(r"[\w-]{1,100}", str(intent.get("id", ""))):
        return "intent.id is 1 to 100 letters, digits, hyphens"
    try:
        _time(intent["not_after"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return "intent.not_after is a time such as 2026-11-21T10:00:00.000Z"
    return None


def _time(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def _now():
    return datetime.datetime.now(datetime.timezone.utc)


def _from_environment():
    missing = [name for name in ("S3_ENDPOINT", "S3_BUCKET", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY") if not os.environ.get(name)]
    if missing:
        sys.exit(f"Set {', '.join(missing)}: the handler keeps its claims and its outputs in that bucket.")
    return Bucket(
        os.environ["S3_ENDPOINT"],
        os.environ["S3_BUCKET"],
        os.environ["S3_ACCESS_KEY_ID"],
        os.environ["S3_SECRET_ACCESS_KEY"],
        os.environ.get("S3_REGION", "auto"),
    )


if __name__ == "__main__":
    if "--local" in sys.argv:
        from painters import square

        # One job on stdin, its answer on stdout, without a GPU and without RunPod.
        print(json.dumps(make_handler(_from_environment(), square)(json.load(sys.stdin))))
    else:
        import runpod

        from painters import diffusion

        runpod.serverless.start({"handler": make_handler(_from_environment(), diffusion())})
