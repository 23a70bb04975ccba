"""Tencent Cloud, emulated: SSM, KMS, CAM, STS, SCF and CLS on the real wire protocol, on 127.0.0.1 only.

It is driven by the official SDK, and built from the SDK's models, its error codes and the API's documentation. Nobody
has compared it with the real cloud. What is not known of that one, and what stands here instead:

- The order of the checks. Here: the signature, the token, the parameters' names and types, the state.
- The code for a value that is too long, a malformed name, base64 that is none: here InvalidParameterValue. For both
  values or none: InvalidParameter. For an unknown version of a known secret: ResourceNotFound.
- The code for DeleteSecret of a secret that is enabled, and RestoreSecret of one that is not deleted: OperationDenied.
- The largest value: the SDK says 32 KB, older pages 4096 bytes. Here 4096, unless :class:`~cloud.Settings` says more.
- Whether reads can be stale, and for how long: here only on demand (the fault ``stale``).
- How rates are counted. Here a token bucket per action and region, as wide as the documented rate of a second.
- What a product's rotation does: here two accounts take turns, as the words for their states in the SDK suggest. A
  rotation that is asked for while another one runs: FailedOperation.
- Whether a rotation can be asked for while it is not enabled: here FailedOperation.RotationForbidden, for the console
  wants it enabled.
- Whether an encryption context of equal meaning but other bytes opens a ciphertext: here it must be the same text.
- Whether an active access key can be deleted: here FailedOperation.Accesskey. Which time zone CAM writes times in: UTC.
- The ARN that GetCallerIdentity gives for a user, and what LastSecretUsedDate counts: here seconds of the day's start.
- Which of its error codes AssumeRoleWithWebIdentity gives for what. Here InvalidParameter.WebIdentityTokenError for a
  token that is not the provider's, or has ended; UnauthorizedOperation where the role's trust does not let it;
  InternalError.GetRoleError for a role, InvalidParameter.ParamError for a provider that is not there.

What is known and not emulated: policies (whoever signs may do everything), a role's trust but for tokens of jobs,
service quotas other than those of secrets, versions and access keys, signatures of version 1, GET and multipart
requests, a payload that is not signed, answers encrypted for the caller, asymmetric and imported keys, hosted data
keys, HSM clusters, secrets of SSH keys, Redis and access keys, the deletion of a product's accounts with their secret,
tags as a service of their own, and that SSM's values are encrypted by a key in KMS.
"""
