//! What the fuzzers begin with: sound inputs of each parser.

use api::resource::RESOURCES;
use serde_json::{Value, json};
use std::path::Path;

const TEXTS: [&str; 38] = [
    "Aapplication/json;as=Table;v=v1;g=meta.k8s.io,application/yaml;q=0.5,*/*",
    "CeyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJucy9hXHUwMDAwIn0",
    "Eself.items.all(i, i.name.startsWith('x') || i.n > 3) && has(self.map.k)",
    "Eself.s.matches('^t.*t$') ? self.a * 2 == 6 : oldSelf.hasValue()",
    "Ecel.bind(x, self.items.map(i, i.?n.orValue(0)), x.sum() < 10)",
    "Eduration('1h') > duration('30s') && quantity('1Gi').isGreaterThan(quantity('5M'))",
    "Eip('10.0.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.2.3')",
    "E'%s-%d'.format(['a', 1]).split('-')[1].size() + [1, 2, 3].indexOf(2)",
    "Esemver('1.2.3').major() == 1 && url('https://a.b/c?d').getHost() in ['a.b']",
    "F\x01metadata.name=a,metadata.namespace!=b\\,c",
    "FAspec.nodeName==n,status.phase!=Running",
    "JeyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLCJleHAiOjEzMDA4MTkzODAsImF1ZCI6WyJhIl19.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
    r#"J{"keys":[{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB"},{"kty":"EC","crv":"P-384","x":"AA","y":"AA"}]}"#,
    r#"O{"issuer":"https://i","jwks_uri":"https://i:443/keys?a=b"}"#,
    r#"O{"keys":[{"kty":"RSA","use":"sig","kid":"a","alg":"RS256","n":"AAEAAQ==","e":"AQAB"}]}"#,
    r#"O{"_claim_names":{"groups":"s"},"_claim_sources":{"s":{"endpoint":"https://e","access_token":"t"}}}"#,
    "La in (b,c),!d,e!=f,g,h notin (i),n>3,m<5",
    r#"L{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"n","operator":"In","values":["x"]}]}"#,
    "Q1.5e3",
    "Q-0.000000000000000001Ki",
    "Q9223372036854775807E",
    "b\x00apiVersion: v1\nkind: X\nmetadata: {name: a, labels: {b: 'c'}}\nspec:\n- &x {a: 1}\n- *x\n",
    "d{\"metadata\":{\"name\":\"t.e.x\"},\"spec\":{\"group\":\"e.x\",\"scope\":\"Namespaced\",\"names\":{\"plural\":\"t\",\"kind\":\"T\"},\"versions\":[{\"name\":\"v1\",\"served\":true,\"storage\":true,\"subresources\":{\"status\":{}},\"additionalPrinterColumns\":[{\"name\":\"a\",\"type\":\"string\",\"jsonPath\":\".spec.a\"}],\"schema\":{\"openAPIV3Schema\":{\"type\":\"object\",\"properties\":{\"spec\":{\"type\":\"object\",\"x-kubernetes-validations\":[{\"rule\":\"self.a > 1\"}],\"properties\":{\"a\":{\"type\":\"integer\",\"default\":2,\"minimum\":1},\"l\":{\"type\":\"array\",\"maxItems\":3,\"x-kubernetes-list-type\":\"map\",\"x-kubernetes-list-map-keys\":[\"k\"],\"items\":{\"type\":\"object\",\"required\":[\"k\"],\"properties\":{\"k\":{\"type\":\"string\",\"pattern\":\"^a\",\"format\":\"date-time\"}}}}}}}}}}]}}\n{\"metadata\":{\"name\":\"x\"},\"spec\":{\"a\":3,\"l\":[{\"k\":\"a\"}]}}",
    "j{\"a\":[1,{\"b\":2}]}\n[{\"op\":\"test\",\"path\":\"/a/0\",\"value\":1},{\"op\":\"add\",\"path\":\"/a/-\",\"value\":{}},{\"op\":\"move\",\"from\":\"/a/1/b\",\"path\":\"/c\"},{\"op\":\"copy\",\"from\":\"/a\",\"path\":\"/d\"},{\"op\":\"remove\",\"path\":\"/a/0\"},{\"op\":\"replace\",\"path\":\"\",\"value\":3}]",
    "m{\"a\":{\"b\":1},\"c\":2}\n{\"a\":{\"b\":null,\"d\":[1]},\"e\":{\"f\":null}}",
    "w\u{1}\u{0}",
    "y\u{0}\u{0}\u{0}\u{1}\u{0}\u{0}\u{0}\u{2}hi",
    "Aapplication/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
    "Qm",
    "Q1Ki",
    "Q+.5u",
    "Q1e-9",
    "Q00012.500M",
    "L",
    "La=b,c==d",
    "Lx.y/z in (,)",
    "F\x02",
    "E1",
];

const POD: &str = r#"{"metadata":{"name":"p","labels":{"a":"b"},"finalizers":["x/y"]},"spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80}],"env":[{"name":"A","value":"b"}],"resources":{"limits":{"cpu":"1"}},"livenessProbe":{"httpGet":{"port":"http"}}}],"volumes":[{"name":"v","emptyDir":{}}],"tolerations":[{"key":"k","operator":"Exists"}],"nodeSelector":{"a":"b"}},"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#;
const DEPLOYMENT: &str = r#"{"metadata":{"name":"d"},"spec":{"replicas":2,"selector":{"matchLabels":{"a":"b"}},"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":"25%"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#;
const SERVICE: &str = r#"{"metadata":{"name":"s"},"spec":{"ports":[{"name":"a","port":80,"targetPort":"http"}],"clusterIP":"10.0.0.1","type":"LoadBalancer"},"status":{"loadBalancer":{"ingress":[{"ip":"1.2.3.4"}]}}}"#;
const PATCH: &str = r#"{"metadata":{"$deleteFromPrimitiveList/finalizers":["x/y"],"labels":null},"spec":{"$setElementOrder/containers":[{"name":"d"},{"name":"c"}],"$retainKeys":["containers","volumes"],"containers":[{"name":"c","image":"j","$retainKeys":["name","image"]},{"name":"d","env":[{"name":"A","$patch":"delete"}]}],"volumes":[{"$patch":"replace"},{"name":"w"}]}}"#;

/// Writes every seed into a file of its own.
pub fn write(folder: &Path) {
    let mut seeds: Vec<Vec<u8>> = TEXTS.iter().map(|text| text.as_bytes().to_vec()).collect();
    for (at, resource) in (0_u8..).zip(RESOURCES.iter()) {
        let object = match &*resource.kind {
            "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => DEPLOYMENT,
            "Service" => SERVICE,
            "Pod" => POD,
            _ => r#"{"metadata":{"name":"a","annotations":{"x":"y"}},"spec":{},"status":{}}"#,
        };
        let with =
            |letter: u8, lines: &[&str]| [&[letter, at][..], lines.join("\n").as_bytes()].concat();
        seeds.push(with(b'b', &[object]));
        seeds.push(with(b'o', &[object, object]));
        seeds.push(with(b's', &[object, PATCH]));
        seeds.push(with(b'a', &[object, POD, object]));
        let mut object: Value = serde_json::from_str(object).unwrap_or_default();
        object["apiVersion"] = json!(resource.api_version(&resource.versions[0]));
        object["kind"] = json!(resource.kind);
        if let Ok(message) = api::protobuf::encode(&object) {
            seeds.push([b"p".to_vec(), message].concat());
        }
    }
    for (at, seed) in seeds.iter().enumerate() {
        let written = std::fs::write(folder.join(format!("seed-{at:03}")), seed);
        written.expect("a folder for the seeds");
    }
}
