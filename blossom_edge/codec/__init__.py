"""Values to bytes and back. Every bound is checked before memory is taken; bad bytes raise only `RemoteError`."""
