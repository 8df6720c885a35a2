"""Remembers the last requests of a scenario, to the service and to the stores, for the report of its failure."""
import collections
import http.client

KEPT = 10
MAX_URL_CHARACTERS = 300

last = collections.deque(maxlen=KEPT)


def start():
    """Records every request that goes through `http.client`: those of `requests`, boto3 and urllib do."""
    put_request, get_response = http.client.HTTPConnection.putrequest, http.client.HTTPConnection.getresponse

    def record_request(self, method, url, *args, **kwargs):
        self.recorded = {"request": "%s %s:%s %s" % (method, self.host, self.port, url[:MAX_URL_CHARACTERS]),
                         "response": "no response"}
        last.append(self.recorded)
        return put_request(self, method, url, *args, **kwargs)

    def record_response(self, *args, **kwargs):
        response = get_response(self, *args, **kwargs)
        if hasattr(self, "recorded"):
            self.recorded["response"] = "%s %s" % (response.status, response.headers.get("X-Request-Id") or "")
        return response
    http.client.HTTPConnection.putrequest = record_request
    http.client.HTTPConnection.getresponse = record_response


def report():
    lines = ["  %s -> %s" % (entry["request"], entry["response"]) for entry in list(last)]
    return "\n".join(["last %d requests, oldest first:" % len(lines)] + lines)
