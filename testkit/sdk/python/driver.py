"""Driver of posthog-python."""

import json
import math
import os
import sys
from datetime import datetime, timezone

from posthog import Posthog

URL = os.environ["CAPTURE_URL"]
TOKEN = os.environ["CAPTURE_TOKEN"]
SCENARIO = os.environ["CAPTURE_SCENARIO"]
MAJOR = int(os.environ["CAPTURE_SDK_VERSION"].split(".")[0])
MODE, _, COMPRESSION = os.environ["CAPTURE_MODE"].partition("+")
USERS = ["ann", "bob@example.com", "zoë 漢", "dan"]

failed = False


def on_error(error, batch):
    global failed
    failed = True
    print(f"{len(batch)} events are lost: {error}", file=sys.stderr)


def new_client():
    options = {}
    if MAJOR >= 7:
        options["capture_mode"] = MODE
    if COMPRESSION == "gzip" and MODE == "v0":
        options["gzip"] = True
    elif COMPRESSION:
        options["capture_compression"] = COMPRESSION
    return Posthog(
        project_api_key=TOKEN,
        host=URL,
        # As long as a batch may wait for more events: it is sent at once when the script flushes.
        flush_interval=0.1,
        on_error=on_error,
        personal_api_key="phx_e2e" if SCENARIO == "basic" else None,
        **options,
    )


client = new_client()
ids = 0


def announce(line):
    print(json.dumps(line), flush=True)


def tell(user, event):
    """Announces an event and returns the property that the SDK gets with it."""
    global ids
    ids += 1
    announce({"user": str(user), "event": event, "id": str(ids)})
    return {"e2e_id": str(ids)}


def capture(user, event, properties, **more):
    properties = {**properties, **tell(user, event)}
    client.capture(event=event, distinct_id=user, properties=properties, **more)


def varied(n):
    """Properties that are different in kind from one event to the next."""
    return [
        {"text": "plain", "empty": "", "number": n, "negative": -0.5, "large": 10**39 + n, "nothing": None},
        {"greeting": "Grüße aus Zürich", "han": "漢字かな", "rtl": "שלום", "emoji": "👩‍👩‍👧‍👦🇨🇭", "line": "a\nb\tc\u2028d"},
        {"nested": {"a": {"b": {"c": [1, "two", {"three": []}]}}}, "list": [[], {}, [None, True]]},
        {"not_a_number": math.nan, "infinite": math.inf, "negative": -math.inf, "in_list": [math.nan, 1]},
        # As a text that was cut inside an emoji by something that counts in UTF-16.
        {"cut": "\ud83d", "escapes": '"\\/\b\f\r\u0001', "html": "<script>&amp;</script>"},
    ][n % 5]


def expect_no_flag(value):
    if value:
        raise AssertionError(f"a flag that does not exist is {value!r}")


def basic():
    for n in range(20):
        for user in USERS[:3]:
            capture(user, f"basic {n % 4}", varied(n))
        if n % 5 == 4:
            client.flush()
    capture(12345, "numeric user", varied(0))
    if MAJOR >= 7:
        client.set(distinct_id=USERS[0], properties={"plan": "free", **tell(USERS[0], "$set")})
        client.set_once(distinct_id=USERS[0], properties={"first_seen": "today", **tell(USERS[0], "$set_once")})
    else:
        client.identify(distinct_id=USERS[0], properties={"plan": "free", **tell(USERS[0], "$identify")})
    announce({"user": USERS[0], "event": "$create_alias", "id": ""})
    client.alias(previous_id=USERS[0], distinct_id="ann-before-login")
    properties = {"employees": 11, **tell(USERS[1], "$groupidentify")}
    client.group_identify("company", "acme", properties, distinct_id=USERS[1])
    capture(USERS[1], "grouped", {}, groups={"company": "acme"})
    capture(USERS[1], "past", {}, timestamp=datetime(2024, 2, 29, 23, 59, 59, 999000, tzinfo=timezone.utc))
    try:
        raise ValueError("an error")
    except ValueError as error:
        client.capture_exception(error, distinct_id=USERS[1], properties=tell(USERS[1], "$exception"))
    generation = {
        "$ai_model": "some-model", "$ai_provider": "some-provider", "$ai_trace_id": "trace", "$ai_input_tokens": 7,
    }
    capture(USERS[2], "$ai_generation", generation)
    if MAJOR >= 7:
        properties = {**generation, **tell(USERS[1], "$ai_generation")}
        client.capture_ai("$ai_generation", distinct_id=USERS[1], properties=properties)
    client.flush()
    expect_no_flag(client.feature_enabled("no-such-flag", USERS[0]))
    expect_no_flag(client.get_feature_flag("no-other-flag", USERS[0]))
    announce({"auto": "$feature_flag_called", "min": 1})


def retry():
    for n in range(40):
        capture(USERS[n % 4], "retry", varied(n))
        if n % 10 == 9:
            client.flush()


{"basic": basic, "retry": retry, "dropped": retry}[SCENARIO]()
client.flush()
client.shutdown()
sys.exit(1 if failed else 0)
