"""What a reviewer has to see in Terraform plans and a rotation plan: as a comment, and as a verdict by declared rules.

:mod:`~rotation.review.document` is what everything else works on: the plans, normalized, without sensitive values.
"""
