"""The typed Python client against a cluster: what scripts and notebooks do with it.

typed.py KUBECONFIG IMAGE
"""

import sys
import threading
import time
import urllib.request

from kubernetes import client, config, utils, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock
from kubernetes.stream import portforward, stream

KUBECONFIG, IMAGE = sys.argv[1:]
NAMESPACE = "typed"
# The longest that anything is waited for, in seconds.
PATIENCE = 60

config.load_kube_config(KUBECONFIG)
core, apps, batch = client.CoreV1Api(), client.AppsV1Api(), client.BatchV1Api()


def meta(name, **rest):
    return client.V1ObjectMeta(name=name, **rest)


def refused(status, reason, call, *arguments, **named):
    """The call must fail so."""
    try:
        call(*arguments, **named)
    except ApiException as error:
        assert error.status == status, error
        assert f'"reason":"{reason}"' in error.body.replace('": "', '":"'), error.body
        return error.body
    raise AssertionError(f"{call.__name__} was not refused")


def until(listing, wanted, **named):
    """Watches a list until an object is as wanted, and gives it."""
    for event in watch.Watch().stream(listing, timeout_seconds=PATIENCE, **named):
        if wanted(event["object"]):
            return event["object"]
    raise AssertionError(f"{listing.__name__} {named}: not within {PATIENCE} s")


def versions():
    said = client.VersionApi().get_code()
    assert said.major == "1" and int(said.minor) >= 36, said
    groups = {group.name for group in client.ApisApi().get_api_versions().groups}
    assert {"apps", "batch", "rbac.authorization.k8s.io"} <= groups, groups
    names = {resource.name for resource in core.get_api_resources().resources}
    assert {"pods", "pods/log", "services", "nodes"} <= names, names


def config_maps():
    made = core.create_namespaced_config_map(
        NAMESPACE, client.V1ConfigMap(metadata=meta("one", labels={"app": "a"}), data={"k": "v"})
    )
    assert made.metadata.uid and made.metadata.resource_version
    refused(
        409, "AlreadyExists", core.create_namespaced_config_map, NAMESPACE,
        client.V1ConfigMap(metadata=meta("one")),
    )
    refused(404, "NotFound", core.read_namespaced_config_map, "none", NAMESPACE)
    patched = core.patch_namespaced_config_map("one", NAMESPACE, {"data": {"k": None, "l": "w"}})
    assert patched.data == {"l": "w"}, patched.data
    stale = client.V1ConfigMap(metadata=made.metadata, data={"k": "stale"})
    refused(409, "Conflict", core.replace_namespaced_config_map, "one", NAMESPACE, stale)
    patched.data["m"] = "x"
    replaced = core.replace_namespaced_config_map("one", NAMESPACE, patched, dry_run="All")
    assert replaced.data["m"] == "x"
    assert "m" not in core.read_namespaced_config_map("one", NAMESPACE).data, "a dry run"
    operations = [{"op": "add", "path": "/data/n", "value": "y"}]
    patched = core.patch_namespaced_config_map("one", NAMESPACE, operations)
    assert patched.data == {"l": "w", "n": "y"}, patched.data
    for number in range(7):
        core.create_namespaced_config_map(
            NAMESPACE, client.V1ConfigMap(metadata=meta(f"many-{number}", labels={"app": "many"}))
        )
    page, seen = None, []
    while page is None or page.metadata._continue:
        begin = page.metadata._continue if page else None
        page = core.list_namespaced_config_map(
            NAMESPACE, label_selector="app=many", limit=3, _continue=begin
        )
        seen += [item.metadata.name for item in page.items]
    assert seen == [f"many-{number}" for number in range(7)], seen
    core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="app=many")
    left = core.list_namespaced_config_map(NAMESPACE, label_selector="app=many")
    assert not left.items, left.items


def watching():
    start = core.list_namespaced_secret(NAMESPACE).metadata.resource_version
    core.create_namespaced_secret(
        NAMESPACE, client.V1Secret(metadata=meta("kept"), string_data={"word": "boat"})
    )
    core.patch_namespaced_secret("kept", NAMESPACE, {"metadata": {"labels": {"seen": "yes"}}})
    core.delete_namespaced_secret("kept", NAMESPACE)
    seen = []
    watcher = watch.Watch()
    for event in watcher.stream(
        core.list_namespaced_secret, NAMESPACE, resource_version=start, timeout_seconds=PATIENCE
    ):
        seen.append(event["type"])
        if event["type"] == "DELETED":
            watcher.stop()
    assert seen == ["ADDED", "MODIFIED", "DELETED"], seen


def workloads():
    labels = {"app": "web"}
    container = client.V1Container(
        name="main", image=IMAGE, command=["sh", "-c"],
        args=["echo serving; mkdir /www; echo hello >/www/index.html; httpd -f -p 8080 -h /www"],
        ports=[client.V1ContainerPort(container_port=8080)],
        readiness_probe=client.V1Probe(
            http_get=client.V1HTTPGetAction(path="/", port=8080), period_seconds=1
        ),
    )
    spec = client.V1DeploymentSpec(
        replicas=1, selector=client.V1LabelSelector(match_labels=labels),
        template=client.V1PodTemplateSpec(
            metadata=client.V1ObjectMeta(labels=labels),
            spec=client.V1PodSpec(containers=[container], termination_grace_period_seconds=1),
        ),
    )
    apps.create_namespaced_deployment(
        NAMESPACE, client.V1Deployment(metadata=meta("web"), spec=spec)
    )
    until(
        apps.list_namespaced_deployment, lambda web: web.status.available_replicas == 1,
        namespace=NAMESPACE,
    )
    scale = apps.read_namespaced_deployment_scale("web", NAMESPACE)
    scale.spec.replicas = 2
    apps.replace_namespaced_deployment_scale("web", NAMESPACE, scale)
    until(
        apps.list_namespaced_deployment, lambda web: web.status.available_replicas == 2,
        namespace=NAMESPACE,
    )
    pod = core.list_namespaced_pod(NAMESPACE, label_selector="app=web").items[0]
    return pod.metadata.name


def streams(pod):
    # As it comes: this client makes the text "b'...'" of it.
    log = core.read_namespaced_pod_log(pod, NAMESPACE, _preload_content=False).data
    assert log == b"serving\n", log
    said = stream(
        core.connect_get_namespaced_pod_exec, pod, NAMESPACE, command=["sh", "-c", "echo in $0", "x"],
        stderr=True, stdin=False, stdout=True, tty=False,
    )
    assert said == "in x\n", repr(said)
    shell = stream(
        core.connect_get_namespaced_pod_exec, pod, NAMESPACE, command=["sh"],
        stderr=True, stdin=True, stdout=True, tty=False, _preload_content=False,
    )
    shell.write_stdin("echo out; echo err >&2; exit 3\n")
    shell.run_forever(timeout=PATIENCE)
    assert (shell.read_stdout(), shell.read_stderr()) == ("out\n", "err\n")
    assert shell.returncode == 3, shell.returncode
    forward = portforward(core.connect_get_namespaced_pod_portforward, pod, NAMESPACE, ports="8080")
    socket = forward.socket(8080)
    socket.settimeout(PATIENCE)
    socket.sendall(b"GET / HTTP/1.0\r\n\r\n")
    answer = b""
    while chunk := socket.recv(4096):
        answer += chunk
    assert answer.endswith(b"hello\n"), answer
    assert forward.error(8080) is None


def figures(pod):
    """What Prometheus reads of each node: a pod's network, and its container by name and image."""
    node = core.read_namespaced_pod(pod, NAMESPACE).spec.node_name
    answer = core.connect_get_node_proxy_with_path(node, "metrics/cadvisor", _preload_content=False)
    page = answer.data.decode()

    def value(name, *labels):
        labels += (f'namespace="{NAMESPACE}"', f'pod="{pod}"')
        lines = [line for line in page.splitlines() if line.startswith(name + "{")]
        [line] = [line for line in lines if all(label in line for label in labels)]
        return float(line.rsplit(" ", 1)[1])

    # Its probe asks over the network every second.
    assert value("container_network_receive_bytes_total", 'container=""', 'interface="eth0"') > 0
    assert value("container_memory_working_set_bytes", 'container="main"', f'image="{IMAGE}"') > 0


def jobs():
    container = client.V1Container(name="main", image=IMAGE, command=["true"])
    spec = client.V1JobSpec(
        template=client.V1PodTemplateSpec(
            spec=client.V1PodSpec(containers=[container], restart_policy="Never")
        )
    )
    batch.create_namespaced_job(NAMESPACE, client.V1Job(metadata=meta("once"), spec=spec))
    until(batch.list_namespaced_job, lambda job: job.status.succeeded == 1, namespace=NAMESPACE)


def permissions():
    review = client.V1SelfSubjectAccessReview(
        spec=client.V1SelfSubjectAccessReviewSpec(
            resource_attributes=client.V1ResourceAttributes(verb="delete", resource="nodes")
        )
    )
    api = client.AuthorizationV1Api()
    assert api.create_self_subject_access_review(review).status.allowed
    core.create_namespaced_service_account(
        NAMESPACE, client.V1ServiceAccount(metadata=meta("guest"))
    )
    token = core.create_namespaced_service_account_token(
        "guest", NAMESPACE,
        client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[])),
    ).status.token
    guest = client.Configuration.get_default_copy()
    guest.cert_file = guest.key_file = None
    guest.api_key = {"authorization": f"Bearer {token}"}
    as_guest = client.CoreV1Api(client.ApiClient(guest))
    said = refused(403, "Forbidden", as_guest.list_namespaced_pod, NAMESPACE)
    assert f"system:serviceaccount:{NAMESPACE}:guest" in said, said
    me = client.AuthenticationV1Api(client.ApiClient(guest)).create_self_subject_review(
        client.V1SelfSubjectReview()
    )
    assert me.status.user_info.username == f"system:serviceaccount:{NAMESPACE}:guest", me


def from_yaml():
    utils.create_from_dict(
        client.ApiClient(),
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": NAMESPACE},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
        },
    )
    service = core.read_namespaced_service("web", NAMESPACE)
    until(
        client.DiscoveryV1Api().list_namespaced_endpoint_slice,
        lambda found: found.endpoints and len(found.endpoints) == 2,
        namespace=NAMESPACE, label_selector="kubernetes.io/service-name=web",
    )
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            address = f"http://{service.spec.cluster_ip}/"
            with urllib.request.urlopen(address, timeout=PATIENCE) as page:
                assert page.read() == b"hello\n"
            return
        except OSError:
            # The kernel has it some time after the API.
            assert time.monotonic() < deadline
            time.sleep(0.1)


def election():
    """Leads, and says so in the lock."""
    led = threading.Event()

    def lead():
        led.set()
        # Ends the election's thread with it.
        raise SystemExit

    lock = ConfigMapLock("leader", NAMESPACE, "me")
    settings = electionconfig.Config(
        lock, lease_duration=17, renew_deadline=15, retry_period=5, onstarted_leading=lead,
        onstopped_leading=None,
    )
    elected = leaderelection.LeaderElection(settings)
    threading.Thread(target=elected.run, daemon=True).start()
    assert led.wait(PATIENCE)
    found = core.read_namespaced_config_map("leader", NAMESPACE).metadata.annotations
    assert '"me"' in found["control-plane.alpha.kubernetes.io/leader"], found


def depths():
    """A body of a thousand brackets is refused, and the server has the room to see it."""
    api, path = client.ApiClient(), f"/api/v1/namespaces/{NAMESPACE}/configmaps"
    for notation, nested in [
        ("application/json", '{"data":' + "[" * 1000 + "]" * 1000 + "}"),
        ("application/yaml", "data: " + "{a: " * 1000 + "1" + "}" * 1000),
        ("application/yaml", "- " * 1000 + "x"),
    ]:
        refused(400, "BadRequest", send, api, "POST", path, notation, nested)
    named = f"{path}/deep?fieldManager=deep"
    refused(400, "BadRequest", send, api, "PATCH", named, "application/apply-patch+yaml", nested)
    core.list_namespaced_config_map(NAMESPACE)


def send(api, method, path, notation, body):
    """A body as it is."""
    headers = {"Content-Type": notation, "Accept": "application/json"}
    api.update_params_for_auth(headers, [], ["BearerToken"])
    url = api.configuration.host + path
    pool = api.rest_client.pool_manager
    answer = pool.request(method, url, body=body.encode(), headers=headers)
    if answer.status >= 400:
        error = ApiException(status=answer.status, reason=answer.reason)
        error.body = answer.data.decode()
        raise error


def ending():
    core.delete_namespace(NAMESPACE)
    for event in watch.Watch().stream(core.list_namespace, timeout_seconds=PATIENCE):
        if event["type"] == "DELETED" and event["object"].metadata.name == NAMESPACE:
            return
    raise AssertionError("the namespace did not go")


core.create_namespace(client.V1Namespace(metadata=meta(NAMESPACE)))
until(
    core.list_namespaced_service_account, lambda account: account.metadata.name == "default",
    namespace=NAMESPACE,
)
for step in [versions, config_maps, watching]:
    step()
    print(step.__name__)
pod = workloads()
streams(pod)
figures(pod)
for step in [jobs, permissions, from_yaml, election, depths, ending]:
    step()
    print(step.__name__)
