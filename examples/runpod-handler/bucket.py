"""The four things that the handler wants of an S3 bucket, on the standard library alone.

Works with S3, R2, MinIO and whatever else speaks the protocol and knows `If-None-Match: *` on PUT.
"""

import datetime
import hashlib
import hmac
import http.client
import urllib.parse

TIMEOUT_SECONDS = 20
MOST_BYTES = 64 * 1024 * 1024


class BucketError(Exception):
    """The bucket did not do what was asked; says what to look at."""


class Bucket:
    """`endpoint`: scheme and host; objects lie at endpoint/name/key (path style)."""

    def __init__(self, endpoint, name, key_id, secret, region="auto"):
        self.endpoint = urllib.parse.urlsplit(endpoint)
        self.name, self.key_id, self.secret, self.region = name, key_id, secret, region

    def put_new(self, key, body, content_type):
        """True: written, and it was not there before. False: somebody was first."""
        for _ in range(3):
            status, _body = self._send("PUT", key, body, {"content-type": content_type, "if-none-match": "*"})
            if status == 200:
                return True
            if status == 412:
                return False
            # 409: two wrote at the same time, and the bucket had neither win.
            if status != 409:
                raise BucketError(f"PUT {key} answered {status}: check the bucket's name, region and credentials")
        raise BucketError(f"PUT {key}: others kept writing it")

    def put(self, key, body, content_type):
        status, _body = self._send("PUT", key, body, {"content-type": content_type})
        if status != 200:
            raise BucketError(f"PUT {key} answered {status}: check the bucket's name, region and credentials")

    def get(self, key):
        """None: there is no such object."""
        status, body = self._send("GET", key, b"", {})
        if status == 404:
            return None
        if status != 200:
            raise BucketError(f"GET {key} answered {status}: the credentials need s3:GetObject and s3:ListBucket")
        return body

    def url(self, key, seconds):
        """A URL by which anybody may read the object for so long."""
        now = _now()
        query = {
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"{self.key_id}/{_scope(now, self.region)}",
            "X-Amz-Date": now,
            "X-Amz-Expires": str(seconds),
            "X-Amz-SignedHeaders": "host",
        }
        path = self._path(key)
        signature = sign(
            "GET", path, query, {"host": self.endpoint.netloc}, "UNSIGNED-PAYLOAD", now, self.region, self.secret
        )
        base = f"{self.endpoint.scheme}://{self.endpoint.netloc}{path}"
        return f"{base}?{_query({**query, 'X-Amz-Signature': signature})}"

    def _path(self, key):
        return urllib.parse.quote(f"/{self.name}/{key}", safe="/-_.~")

    def _send(self, method, key, body, headers):
        now, path = _now(), self._path(key)
        digest = hashlib.sha256(body).hexdigest()
        signed = {
            **headers,
            "host": self.endpoint.netloc,
            "x-amz-content-sha256": digest,
            "x-amz-date": now,
        }
        signature = sign(method, path, {}, signed, digest, now, self.region, self.secret)
        authorization = (
            f"AWS4-HMAC-SHA256 Credential={self.key_id}/{_scope(now, self.region)},"
            f"SignedHeaders={';'.join(sorted(signed))},Signature={signature}"
        )
        secure = self.endpoint.scheme == "https"
        connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = connect(self.endpoint.netloc, timeout=TIMEOUT_SECONDS)
        try:
            connection.request(method, path, body or None, {**signed, "authorization": authorization})
            response = connection.getresponse()
            return response.status, response.read(MOST_BYTES)
        finally:
            connection.close()


def sign(method, path, query, headers, digest, now, region, secret):
    """AWS Signature Version 4, the last step of it: 64 hex digits."""
    names = sorted(headers)
    request = "\n".join(
        [
            method,
            path,
            _query(query),
            *(f"{name}:{headers[name]}" for name in names),
            "",
            ";".join(names),
            digest,
        ]
    )
    text = "\n".join(
        ["AWS4-HMAC-SHA256", now, _scope(now, region), hashlib.sha256(request.encode()).hexdigest()]
    )
    key = f"AWS4{secret}".encode()
    for part in (now[:8], region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _scope(now, region):
    return f"{now[:8]}/{region}/s3/aws4_request"


def _query(query):
    quote = lambda text: urllib.parse.quote(text, safe="-_.~")
    return "&".join(f"{quote(name)}={quote(query[name])}" for name in sorted(query))


def _now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
