"""Signatures and tokens."""
import json

from common import E, raw


def identity():
    status, body, _ = raw("GET", "/v2/%s/tasks" % E["PROJECT"], sign=False)
    assert (status, body["error_code"]) == (401, "APIGW.0301") and "x-auth-token not found" in body["error_msg"]
    status, found, _ = raw("GET", "/v3/projects?name=lab")
    assert status == 200 and [p["id"] for p in found["projects"]] == [E["PROJECT"]]
    assert raw("GET", "/v3/projects?name=other")[1]["projects"] == []
    assert len(raw("GET", "/v3/auth/domains")[1]["domains"]) == 1
    # cl_f01: added after signing. It may name the project of the path, and no other.
    tasks = "/v2/%s/tasks" % E["PROJECT"]
    assert raw("GET", tasks, headers={"X-Project-Id": E["PROJECT"], "X-Domain-Id": "d"})[0] == 200
    status, refused, _ = raw("GET", tasks, headers={"X-Project-Id": "0" * 32})
    assert (status, refused["error_code"]) == (403, "APIGW.0302"), refused
    ask = {"auth": {"identity": {"methods": ["hw_ak_sk"], "hw_ak_sk": {
        "access": {"key": E["AK"]}, "secret": {"key": E["SK"]}}}, "scope": {"project": {"name": "lab"}}}}
    status, token, headers = raw("POST", "/v3/auth/tokens", json.dumps(ask).encode(), sign=False)
    assert status == 201 and token["token"]["project"]["id"] == E["PROJECT"] and len(token["token"]["expires_at"]) == 27
    assert token["token"]["roles"] == [{"id": "0", "name": "operator"}], token
    mine = {"X-Auth-Token": headers["X-Subject-Token"], "Authorization": ""}
    assert raw("GET", "/v2/%s/tasks" % E["PROJECT"], headers=mine, sign=False)[0] == 200
    assert raw("GET", "/v2/%s/tasks" % ("0" * 32), headers=mine, sign=False)[0] == 403
    ask["auth"]["identity"]["hw_ak_sk"]["secret"]["key"] = "wrong"
    for _ in range(6):
        status, refused, _ = raw("POST", "/v3/auth/tokens", json.dumps(ask).encode(), sign=False)
        assert status == 401 and refused["error"]["code"] == 401
    status, refused, _ = raw("POST", "/v3/auth/tokens", json.dumps(ask).encode(), sign=False)
    assert "locked" in refused["error"]["message"], refused
    # c02, sec_f21: a right key passes all the same, a right signature after wrong ones, a good token after bad ones.
    ask["auth"]["identity"]["hw_ak_sk"]["secret"]["key"] = E["SK"]
    assert raw("POST", "/v3/auth/tokens", json.dumps(ask).encode(), sign=False)[0] == 201
    right, E["SK"] = E["SK"], "wrong"
    for _ in range(8):
        assert raw("GET", tasks)[0] == 401
    E["SK"] = right
    assert raw("GET", tasks)[0] == 200
    for _ in range(8):
        bad = {"X-Auth-Token": "A" * 43, "Authorization": ""}
        assert raw("GET", tasks, headers=bad, sign=False)[0] == 401
    assert raw("GET", tasks, headers=mine, sign=False)[0] == 200
    # Passwords are locked, per account.
    guess = {"auth": {"identity": {"methods": ["password"], "password": {"user": {
        "name": "nobody", "domain": {"name": "x"}, "password": "guess"}}}}}
    for turn in range(7):
        status, refused, _ = raw("POST", "/v3/auth/tokens", json.dumps(guess).encode(), sign=False)
        assert status == 401 and ("locked" in refused["error"]["message"]) == (turn == 6), (turn, refused)

    # cl_f06: a token for a token, of another scope and with the same end.
    def exchange(token, scope=None):
        asked = {"auth": {"identity": {"methods": ["token"], "token": {"id": token}}}}
        if scope:
            asked["auth"]["scope"] = scope
        return raw("POST", "/v3/auth/tokens", json.dumps(asked).encode(), sign=False)
    first = headers["X-Subject-Token"]
    for scope, field in (({"project": {"name": "lab"}}, "project"), (None, "project"), ({"domain": {"name": "x"}}, "domain")):
        status, again, got = exchange(first, scope)
        assert status == 201 and field in again["token"] and again["token"]["methods"] == ["token"], again
        assert again["token"]["expires_at"] == token["token"]["expires_at"]
        seen = raw("GET", tasks, headers={"X-Auth-Token": got["X-Subject-Token"], "Authorization": ""}, sign=False)[0]
        assert seen == (200 if field == "project" else 403), scope
    assert exchange(first, {"project": {"name": "other"}})[0] == 401
    assert exchange("x")[0] == 401 and exchange(5)[0] == 400
    # sec_f22: a token that was revoked opens nothing, and the one that revoked it still does.
    second = exchange(first)[2]["X-Subject-Token"]
    held = {"X-Auth-Token": second, "Authorization": ""}
    assert raw("GET", tasks, headers=held, sign=False)[0] == 200
    assert raw("DELETE", "/v3/auth/tokens", headers=dict(mine, **{"X-Subject-Token": second}), sign=False)[0] == 204
    assert raw("GET", tasks, headers=held, sign=False)[0] == 401
    assert raw("GET", tasks, headers=mine, sign=False)[0] == 200
    # A client that knows only its region finds its project by itself.
    from huaweicloudsdkcore.auth.credentials import BasicCredentials
    from huaweicloudsdkcore.region.region import Region
    import huaweicloudsdkoms.v2 as sdk
    credentials = BasicCredentials(E["AK"], E["SK"]).with_iam_endpoint(E["ENDPOINT"])
    oms = (sdk.OmsClient.new_builder().with_credentials(credentials)
           .with_region(Region("lab", E["ENDPOINT"])).build())
    assert oms.list_tasks(sdk.ListTasksRequest()).count == 0
