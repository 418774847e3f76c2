"""Prints the profile uploads that Datadog's test agent took, as JSON, oldest first.

The forms are parsed by Python's own MIME parser, so that ours is not the only one that can read them.
"""

import base64
import email.parser
import email.policy
import json
import sys
import urllib.request


def parts(request):
    head = f"Content-Type: {request['headers']['Content-Type']}\r\nMIME-Version: 1.0\r\n\r\n"
    form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head.encode() + base64.b64decode(request["body"]))
    assert form.is_multipart() and not form.defects, form.defects
    return [
        {
            "name": part.get_param("name", header="content-disposition"),
            "filename": part.get_filename(),
            "type": part.get_content_type(),
            "body": base64.b64encode(part.get_payload(decode=True)).decode(),
        }
        for part in form.iter_parts()
    ]


def main():
    with urllib.request.urlopen(f"{sys.argv[1]}/test/session/requests", timeout=20) as answer:
        requests = json.load(answer)
    uploads = [request for request in requests if request["url"].endswith("/profiling/v1/input")]
    json.dump([{"headers": it["headers"], "method": it["method"], "parts": parts(it)} for it in uploads], sys.stdout)


if __name__ == "__main__":
    main()
