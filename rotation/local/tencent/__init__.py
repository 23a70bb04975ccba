"""Tencent Cloud, emulated: Secrets Manager (SSM) and its neighbours on the real wire protocol, on 127.0.0.1 only."""
