"""The sample application "orders-api": it places orders at a constant rate, and switches credentials without a restart.

``python -m rotation.local.application --name orders-api --ring canary --port N --config s3://BUCKET/KEY --log FILE``

It polls its configuration object, which names the version of each secret and nothing more::

    secrets:
      orders/db: {arn: "arn:…", version_id: "g0000000042-…", generation: 42}
      orders/api-token: {arn: "arn:…", version_id: "g0000000007-…", generation: 7, sealed_with: alias/orders}

or, of a secret in Vault or in Tencent Cloud's SSM, what these read it by (values.py).
A new version is fetched, tried, and only then used: every order is placed by one generation of the login and signed by
one of the token. What cannot be switched to is tried again every second, while the old one goes on. ``GET /health`` on
127.0.0.1 answers 200 as long as the program lives; its ``status`` is ok, starting or failing. With ``--https-port`` it
answers there over TLS too, each connection with one generation of the certificate "orders/tls". AWS's endpoint, region
and credentials come from boto3's own environment variables, Tencent Cloud's region and credentials from its SDK's.
"""
