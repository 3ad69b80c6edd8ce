"""The contenders' side: each is a process of its own, driven round by round."""
