"""A small client of Redis for the scenarios."""
import socket


class Redis:
    def __init__(self, port, password=None):
        self.sock = socket.create_connection(("127.0.0.1", int(port)), timeout=20)
        self.file = self.sock.makefile("rb")
        if password:
            self("AUTH", password)

    def send(self, *args):
        out = b"*%d\r\n" % len(args)
        for arg in args:
            arg = arg if isinstance(arg, bytes) else str(arg).encode()
            out += b"$%d\r\n%s\r\n" % (len(arg), arg)
        self.sock.sendall(out)

    def read(self):
        line = self.file.readline()
        if not line:
            raise ConnectionError("closed")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            n = int(rest)
            return None if n < 0 else self.file.read(n + 2)[:-2]
        if kind == b"*":
            return [self.read() for _ in range(int(rest))]
        return rest

    def __call__(self, *args):
        self.send(*args)
        return self.read()

    def close(self):
        self.sock.close()
