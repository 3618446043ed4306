"""What Terraform's configurations need and moto 5 does not do, or does otherwise than AWS."""

from __future__ import annotations

import json
from typing import Any


def fill() -> None:
    """Mend moto's services in this process."""
    import xmltodict
    from moto.budgets.responses import BudgetsResponse
    from moto.iam.access_control import IAMPolicy, PermissionResult
    from moto.s3.exceptions import BucketAccessDeniedError
    from moto.s3.models import FakeBucket
    from moto.s3.responses import S3Response

    # Budgets have had tags since 2024; nobody here reads them.
    for operation, answer in (("list_tags_for_resource", {"ResourceTags": []}), ("tag_resource", {})):
        if not hasattr(BudgetsResponse, operation):
            setattr(BudgetsResponse, operation, lambda _, answer=answer: json.dumps(answer))

    # moto takes a statement whose condition does not hold for one that denies. The usual condition of a bucket's policy
    # is that the connection is not encrypted; the fake stands for AWS, where ours are.
    def over_tls(self: FakeBucket, action: str, resource: str) -> PermissionResult:
        if self.policy is None:
            return PermissionResult.NEUTRAL
        document = json.loads(self.policy)
        unencrypted = {"Bool": {"aws:SecureTransport": "false"}}
        document["Statement"] = [each for each in document["Statement"] if each.get("Condition") != unencrypted]
        return IAMPolicy(json.dumps(document)).is_action_permitted(action, resource)

    FakeBucket.get_permission = over_tls

    # Of DeleteObjects, moto asks whether the bucket may be deleted from, which no policy for objects allows. AWS asks
    # for each object; here one that is denied keeps all.
    delete_keys = S3Response._bucket_response_delete_keys

    def delete_allowed_keys(self: S3Response, bucket_name: str, authenticated: bool = True) -> Any:
        if not authenticated:
            objects = xmltodict.parse(self.body, force_list=["Object"])["Delete"].get("Object", [])
            try:
                for each in objects:
                    self._authenticate_and_authorize_s3_action(bucket_name=bucket_name, key_name=each["Key"])
                authenticated = True
            except BucketAccessDeniedError:
                pass
        return delete_keys(self, bucket_name, authenticated)

    S3Response._bucket_response_delete_keys = delete_allowed_keys
