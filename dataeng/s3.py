"""The object store as boto3 finds it: client, settings for other engines, errors in one line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from dataeng.cli import UserError

_MISSING = {"404", "NoSuchKey", "NotFound"}
_REFUSED = {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed"}


def split(path: str) -> tuple[str, str]:
    """The bucket and the key of a path; raises UserError where it names no bucket."""
    bucket, _, key = path.partition("://")[2].partition("/")
    if not bucket:
        raise UserError(f"{path}: names no bucket; write s3://BUCKET/PREFIX")
    return bucket, key


@cache
def _client(process: int = 0) -> Any:
    """The boto3 client of this process; retries throttling and connection faults with back-off."""
    import boto3
    from botocore.config import Config

    settings = Config(retries={"mode": "adaptive", "max_attempts": 10}, max_pool_connections=32)
    return boto3.client("s3", config=settings)


def client() -> Any:
    """This process's boto3 client."""
    return _client(os.getpid())  # a client does not survive a fork


@dataclass(frozen=True)
class Settings:
    """What boto3 resolved, for engines that bring their own S3 client. Never log it."""

    endpoint: str | None
    region: str
    access_key: str | None
    secret_key: str | None
    token: str | None


def settings() -> Settings:
    """Endpoint, region and credentials as boto3 finds them; raises UserError where there are no keys."""
    import boto3

    session = boto3.Session()
    found = session.get_credentials()
    if found is None:
        raise UserError("s3: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile")
    keys = found.get_frozen_credentials()
    url = cast(str, client().meta.endpoint_url)
    endpoint = None if re.fullmatch(r"https://s3(\.[\w-]+)?\.amazonaws\.com(\.cn)?", url) else url
    return Settings(endpoint, session.region_name or "us-east-1", keys.access_key, keys.secret_key, keys.token)


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
        if code in _REFUSED:
            raise UserError(f"{path}: access denied ({code}): check the keys and the bucket's policy") from None
        if code in _MISSING:
            raise FileNotFoundError(path) from None
        raise
    except boto.NoCredentialsError:
        raise UserError(f"{path}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from None
    except (boto.EndpointConnectionError, boto.ConnectTimeoutError) as error:
        raise UserError(f"{path}: the object store does not answer: {error}") from None
