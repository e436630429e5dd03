"""The object store as boto3 finds it: client, settings for other engines, errors in one line."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any, cast

from dataeng.cli import Unreachable, UserError

_MISSING = {"404", "NoSuchKey", "NotFound"}
_REFUSED = {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed"}
_REFUSED |= {"ExpiredToken", "InvalidToken"}
_BODY_ATTEMPTS = 6
_creation = Lock()  # boto3's sessions are not safe to make in several threads at once


def split(path: str) -> tuple[str, str]:
    """The bucket and the key of a path; raises UserError where it names no bucket."""
    bucket, _, key = path.partition("://")[2].partition("/")
    if not bucket:
        raise UserError(f"{path}: names no bucket; write s3://BUCKET/PREFIX")
    return bucket, key


@cache
def _client(process: int = 0) -> Any:
    """The boto3 client of this process; retries throttling and connection faults with back-off.

    Bodies are not signed, over http too, unless the AWS configuration says so: the store compares a checksum that is,
    readers the manifest's, and hashing them once more costs a training machine a second for each gigabyte.
    """
    import boto3
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    try:
        session = botocore.session.get_session()
        own = session.get_scoped_config().get("s3") or {}
        signing = {} if "payload_signing_enabled" in own else {"payload_signing_enabled": False}
        settings = Config(retries={"mode": "adaptive", "max_attempts": 10}, max_pool_connections=32, s3=signing)
        return boto3.Session(botocore_session=session).client("s3", config=settings)
    except (BotoCoreError, ValueError) as error:  # a profile that is not there, half a key, an endpoint without http://
        raise UserError(f"s3: the AWS settings cannot be used: {error}") from None


def client() -> Any:
    """This process's boto3 client."""
    with _creation:
        return _client(os.getpid())  # a client does not survive a fork


@dataclass(frozen=True)
class Settings:
    """What boto3 resolved, for engines that bring their own S3 client. Never log it.

    No keys: they are a role's and expire; the engine asks its own chain of providers.
    """

    endpoint: str | None
    region: str
    access_key: str | None
    secret_key: str | None
    token: str | None


def settings() -> Settings:
    """Endpoint, region and credentials as boto3 finds them; raises UserError where there are no keys."""
    import boto3

    url = cast(str, client().meta.endpoint_url)  # first: it says what is wrong with the settings
    session = boto3.Session()
    found = session.get_credentials()
    if found is None:
        raise UserError("s3: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile")
    keys = found.get_frozen_credentials()
    expires = hasattr(found, "refresh_needed")  # a role's: whoever uses them must renew them, so each finds its own
    endpoint = None if re.fullmatch(r"https://s3(\.[\w-]+)?\.amazonaws\.com(\.cn)?", url) else url
    region = session.region_name or "us-east-1"
    if expires:
        return Settings(endpoint, region, None, None, None)
    return Settings(endpoint, region, keys.access_key, keys.secret_key, keys.token)


@contextmanager
def errors(path: str) -> Iterator[None]:
    """Turn the SDK's errors into FileNotFoundError, or UserError for a wrong bucket, key or endpoint."""
    from botocore import exceptions as boto

    try:
        yield
    except boto.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code == "NoSuchBucket":
            raise UserError(f"{path}: there is no such bucket") from None
        if code == "InvalidBucketName":
            raise UserError(f"{path}: is no bucket's name") from None
        if code in _REFUSED:
            raise UserError(f"{path}: access denied ({code}): check the keys and the bucket's policy") from None
        if code in _MISSING:
            raise FileNotFoundError(path) from None
        raise
    except boto.ParamValidationError as error:
        raise UserError(f"{path}: is no address on S3: {str(error).splitlines()[-1]}") from None
    except (boto.NoCredentialsError, boto.CredentialRetrievalError):
        raise Unreachable(f"{path}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from None
    except (boto.EndpointConnectionError, boto.ConnectTimeoutError) as error:
        raise Unreachable(f"{path}: the object store does not answer: {error}") from None


def need_bucket(path: str) -> None:
    """Raise UserError unless the path's bucket is there."""
    try:
        with errors(path):
            client().head_bucket(Bucket=split(path)[0])
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such bucket") from None


def get(path: str, **more: str) -> tuple[bytes, str]:
    """An object's bytes and tag. A body cut off on its way is asked for again; boto3 retries only its head."""
    from botocore import exceptions as boto

    bucket, key = split(path)
    cut_off = (boto.IncompleteReadError, boto.ResponseStreamingError, boto.ReadTimeoutError)
    for attempt in range(_BODY_ATTEMPTS):
        try:
            with errors(path):
                answer = client().get_object(Bucket=bucket, Key=key, **more)
                return answer["Body"].read(), answer["ETag"]
        except cut_off:
            if attempt == _BODY_ATTEMPTS - 1:
                raise
            time.sleep(0.1 * 2**attempt)
    raise AssertionError("unreachable")
