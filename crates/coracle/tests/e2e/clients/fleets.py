"""An operator with two kinds of its own and its webhooks, by the dynamic Python client.

A Fleet (example.test) asks for some Boats; the operator makes them, and a ConfigMap for each.
Fleets are defaulted by a mutating webhook and judged by a validating one, Boats are served in two
versions that a conversion webhook translates. The webhooks run in this process, on loopback.

fleets.py KUBECONFIG CERTIFICATE KEY
"""

import base64
import http.server
import json
import ssl
import sys
import threading
import time

from kubernetes import client, config, dynamic
from kubernetes.dynamic.exceptions import (
    ConflictError, DynamicApiError, ForbiddenError, NotFoundError, UnprocessibleEntityError,
)

KUBECONFIG, CERTIFICATE, KEY = sys.argv[1:]
GROUP, NAMESPACE = "example.test", "harbour"
FINALIZER = "example.test/harbour-master"
# The longest that anything is waited for, in seconds.
PATIENCE = 60

config.load_kube_config(KUBECONFIG)
api = dynamic.DynamicClient(client.ApiClient())


def patched(review):
    """Gives a Fleet a colour."""
    fleet = review["request"]["object"]
    if "colour" in fleet["spec"]:
        return {"allowed": True}
    patch = json.dumps([{"op": "add", "path": "/spec/colour", "value": "white"}]).encode()
    return {
        "allowed": True, "patchType": "JSONPatch", "patch": base64.b64encode(patch).decode(),
        "warnings": ["boats without a colour are white"],
    }


def judged(review):
    """Refuses what sinks."""
    request = review["request"]
    if request["operation"] == "DELETE":
        locked = request["oldObject"]["metadata"].get("labels", {}).get("locked") == "yes"
        return {"allowed": not locked, "status": {"message": "the fleet is locked", "code": 403}}
    if request["object"]["spec"]["colour"] == "red":
        return {"allowed": False, "status": {"message": "red boats sink", "code": 403}}
    return {"allowed": True}


def converted(review):
    """v1 says `length`, v2 says `size.length`."""
    def translate(boat, version):
        boat = json.loads(json.dumps(boat))
        spec = boat.setdefault("spec", {})
        if version.endswith("/v2") and "length" in spec:
            spec["size"] = {"length": spec.pop("length")}
        if version.endswith("/v1") and "size" in spec:
            spec["length"] = spec.pop("size")["length"]
        return {**boat, "apiVersion": version}

    request = review["request"]
    version = request["desiredAPIVersion"]
    return {
        "convertedObjects": [translate(boat, version) for boat in request["objects"]],
        "result": {"status": "Success"},
    }


class Webhooks(http.server.BaseHTTPRequestHandler):
    """The three of them, by their path."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = self.path.split("?")[0]
        answer = {"/mutate": patched, "/validate": judged, "/convert": converted}[path](review)
        review["response"] = {"uid": review["request"]["uid"], **answer}
        del review["request"]
        body = json.dumps(review).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def serve():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Webhooks)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, KEY)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    bundle = base64.b64encode(open(CERTIFICATE, "rb").read()).decode()
    port = server.server_address[1]
    return lambda path: {"url": f"https://127.0.0.1:{port}/{path}", "caBundle": bundle}


def schema(**spec):
    return {
        "openAPIV3Schema": {
            "type": "object",
            "properties": {
                "spec": {"type": "object", **spec},
                "status": {"type": "object", "properties": {"boats": {"type": "integer"}}},
            },
        }
    }


def definition(kind, plural, versions, **spec):
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP, "scope": "Namespaced", "versions": versions,
            "names": {
                "kind": kind, "plural": plural, "singular": kind.lower(), "shortNames": [kind[0].lower() + "x"],
                "categories": ["all"],
            },
            **spec,
        },
    }


def define(webhook):
    fleet = definition("Fleet", "fleets", [{
        "name": "v1", "served": True, "storage": True,
        "schema": schema(
            required=["boats"],
            properties={
                "boats": {"type": "integer", "minimum": 0, "maximum": 9},
                "colour": {"type": "string"},
                "pace": {"type": "string", "default": "slow", "enum": ["slow", "fast"]},
                "home": {
                    "type": "string",
                    "x-kubernetes-validations": [
                        {"rule": "self == oldSelf", "message": "a fleet keeps its home"}
                    ],
                },
            },
            **{"x-kubernetes-validations": [
                {"rule": "self.pace != 'fast' || self.boats < 5", "message": "large fleets are slow"}
            ]},
        ),
        "subresources": {
            "status": {},
            "scale": {"specReplicasPath": ".spec.boats", "statusReplicasPath": ".status.boats"},
        },
        "additionalPrinterColumns": [
            {"name": "Boats", "type": "integer", "jsonPath": ".spec.boats"},
            {"name": "Colour", "type": "string", "jsonPath": ".spec.colour"},
        ],
        "selectableFields": [{"jsonPath": ".spec.colour"}],
    }])
    number = {"type": "integer"}
    boat = definition("Boat", "boats", [
        {"name": "v1", "served": True, "storage": True, "schema": schema(properties={"length": number})},
        {"name": "v2", "served": True, "storage": False, "schema": schema(properties={
            "size": {"type": "object", "properties": {"length": number}},
        })},
    ], conversion={
        "strategy": "Webhook",
        "webhook": {"clientConfig": webhook("convert"), "conversionReviewVersions": ["v1"]},
    })
    crds = api.resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
    for body in [fleet, boat]:
        crds.create(body)
    for name in [f"fleets.{GROUP}", f"boats.{GROUP}"]:
        until(lambda: condition(crds.get(name), "Established") == "True", f"{name} is established")
    rule = {
        "apiGroups": [GROUP], "apiVersions": ["v1"], "resources": ["fleets"], "scope": "Namespaced",
    }
    common = {"sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail"}
    for kind, path, operations in [
        ("Mutating", "mutate", ["CREATE"]), ("Validating", "validate", ["CREATE", "UPDATE", "DELETE"]),
    ]:
        configurations = api.resources.get(
            api_version="admissionregistration.k8s.io/v1", kind=f"{kind}WebhookConfiguration"
        )
        configurations.create({
            "metadata": {"name": "fleets"},
            "webhooks": [{
                "name": f"{path}.example.test", "clientConfig": webhook(path),
                "rules": [{**rule, "operations": operations}], **common,
            }],
        })


def condition(thing, kind):
    conditions = (thing.to_dict().get("status") or {}).get("conditions") or []
    return next((one["status"] for one in conditions if one["type"] == kind), None)


def until(holds, what):
    deadline = time.monotonic() + PATIENCE
    while True:
        if found := holds():
            return found
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} s"
        time.sleep(0.05)


def resource(kind, version="v1", group=GROUP):
    # A discovery of before the definitions is of no use.
    api.resources.invalidate_cache()
    return api.resources.get(api_version=f"{group}/{version}".lstrip("/"), kind=kind)


def refused(error, words, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except error as said:
        text = said.body.decode() if isinstance(said.body, bytes) else said.body
        assert words in text, text
        return
    raise AssertionError(f"not refused: {words}")


class Operator(threading.Thread):
    """Brings what is there in step with what is asked for, at each event."""

    def __init__(self):
        super().__init__(daemon=True)
        self.fleets, self.boats = resource("Fleet"), resource("Boat")
        self.failure = None

    def run(self):
        try:
            start = self.fleets.get(namespace=NAMESPACE).metadata.resourceVersion
            for event in self.fleets.watch(namespace=NAMESPACE, resource_version=start):
                if event["type"] != "DELETED":
                    self.reconcile(event["object"].metadata.name)
        except Exception as failure:  # pylint: disable=broad-except
            self.failure = failure
            raise

    def reconcile(self, name):
        try:
            fleet = self.fleets.get(name, NAMESPACE)
        except NotFoundError:
            return
        finalizers = list(fleet.metadata.finalizers or [])
        if fleet.metadata.deletionTimestamp:
            for boat in self.boats.get(namespace=NAMESPACE, label_selector=f"fleet={name}").items:
                self.boats.delete(boat.metadata.name, NAMESPACE)
            self.patch(fleet, {"metadata": {"finalizers": [f for f in finalizers if f != FINALIZER]}})
            return
        if FINALIZER not in finalizers:
            self.patch(fleet, {"metadata": {"finalizers": finalizers + [FINALIZER]}})
            return
        for number in range(9):
            self.settle(fleet, number, number < fleet.spec.boats)
        if (fleet.status or {}).get("boats") != fleet.spec.boats:
            self.fleets.status.patch(
                name=name, namespace=NAMESPACE, body={"status": {"boats": fleet.spec.boats}},
                content_type="application/merge-patch+json",
            )

    def settle(self, fleet, number, wanted):
        name = f"{fleet.metadata.name}-{number}"
        if not wanted:
            try:
                self.boats.delete(name, NAMESPACE)
            except NotFoundError:
                pass
            return
        owner = {
            "apiVersion": f"{GROUP}/v1", "kind": "Fleet", "name": fleet.metadata.name,
            "uid": fleet.metadata.uid, "controller": True,
        }
        self.boats.server_side_apply(
            name=name, namespace=NAMESPACE, field_manager="harbour-master",
            body={
                "apiVersion": f"{GROUP}/v1", "kind": "Boat",
                "metadata": {
                    "name": name, "labels": {"fleet": fleet.metadata.name}, "ownerReferences": [owner],
                },
                "spec": {"length": number + 1},
            },
        )

    def patch(self, fleet, body):
        body["metadata"]["resourceVersion"] = fleet.metadata.resourceVersion
        try:
            self.fleets.patch(
                name=fleet.metadata.name, namespace=NAMESPACE, body=body,
                content_type="application/merge-patch+json",
            )
        except ConflictError:
            # Another event is on its way.
            pass


def fleet(name, **spec):
    return {
        "apiVersion": f"{GROUP}/v1", "kind": "Fleet", "metadata": {"name": name}, "spec": spec,
    }


def story(operator):
    fleets, boats, newer = operator.fleets, operator.boats, resource("Boat", "v2")

    def names():
        assert operator.failure is None, operator.failure
        return sorted(boat.metadata.name for boat in boats.get(namespace=NAMESPACE).items)

    made = fleets.create(fleet("north", boats=2, home="here", odd="dropped"), NAMESPACE)
    assert made.spec.to_dict() == {"boats": 2, "home": "here", "pace": "slow", "colour": "white"}, made
    until(lambda: names() == ["north-0", "north-1"], "two boats")
    until(lambda: (fleets.get("north", NAMESPACE).status or {}).get("boats") == 2, "status")

    refused(UnprocessibleEntityError, "spec.boats", fleets.create, fleet("many", boats=10), NAMESPACE)
    refused(UnprocessibleEntityError, "large fleets are slow", fleets.create,
            fleet("many", boats=6, pace="fast"), NAMESPACE)
    refused(ForbiddenError, 'admission webhook \\"validate.example.test\\" denied the request: red boats sink',
            fleets.create, fleet("red", boats=1, colour="red"), NAMESPACE)
    merge = {"content_type": "application/merge-patch+json"}
    refused(UnprocessibleEntityError, "a fleet keeps its home", fleets.patch, name="north",
            namespace=NAMESPACE, body={"spec": {"home": "there"}}, **merge)
    refused(DynamicApiError, "", fleets.patch, name="north", namespace=NAMESPACE,
            body={"spec": {"boats": 1}}, content_type="application/strategic-merge-patch+json")

    scale = fleets.scale.get("north", NAMESPACE)
    assert (scale.spec.replicas, scale.status.replicas) == (2, 2), scale
    fleets.scale.patch(name="north", namespace=NAMESPACE, body={"spec": {"replicas": 3}}, **merge)
    until(lambda: len(names()) == 3, "three boats")
    assert newer.get("north-2", NAMESPACE).spec.to_dict() == {"size": {"length": 3}}
    newer.create({
        "apiVersion": f"{GROUP}/v2", "kind": "Boat", "metadata": {"name": "guest"},
        "spec": {"size": {"length": 40}},
    }, NAMESPACE)
    assert boats.get("guest", NAMESPACE).spec.to_dict() == {"length": 40}
    found = fleets.get(namespace=NAMESPACE, field_selector="spec.colour=white").items
    assert [one.metadata.name for one in found] == ["north"]
    assert not fleets.get(namespace=NAMESPACE, field_selector="spec.colour=blue").items

    labelled = {"metadata": {"labels": {"locked": "yes"}}}
    fleets.patch(name="north", namespace=NAMESPACE, body=labelled, **merge)
    refused(ForbiddenError, "the fleet is locked", fleets.delete, "north", NAMESPACE)
    fleets.patch(name="north", namespace=NAMESPACE, body={"metadata": {"labels": None}}, **merge)
    fleets.delete("north", NAMESPACE)
    until(lambda: names() == ["guest"], "the boats went")
    until(lambda: not fleets.get(namespace=NAMESPACE).items, "the fleet went")


def end():
    crds = api.resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
    crds.delete(f"boats.{GROUP}")

    def gone():
        try:
            crds.get(f"boats.{GROUP}")
        except NotFoundError:
            return True
        return False

    until(gone, "the definition and what it defined went")
    try:
        client.CustomObjectsApi().list_namespaced_custom_object(GROUP, "v1", NAMESPACE, "boats")
        raise AssertionError("boats are served on")
    except client.ApiException as error:
        assert error.status == 404, error


core = client.CoreV1Api()
core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=NAMESPACE)))
define(serve())
operator = Operator()
operator.start()
story(operator)
end()
