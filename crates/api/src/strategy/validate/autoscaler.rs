//! Rules for HorizontalPodAutoscalers (k8s.io/kubernetes `pkg/apis/autoscaling/validation`).

use super::at::{At, Errors};
use super::formats;

const KINDS: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];
const EITHER: &str = "must set either a target value for metric or a per-pod target for metric";
const WINDOW_MAX_SECONDS: i64 = 3600;
const PERIOD_MAX_SECONDS: i64 = 1800;

/// A HorizontalPodAutoscaler.
pub(super) fn autoscaler(object: &At<'_>, out: &mut Errors) {
    let spec = object.get("spec");
    let least = spec.get("minReplicas");
    if least.is_set() && least.number() < 1 {
        out.invalid(&least, "must be greater than or equal to 1");
    }
    let most = spec.get("maxReplicas");
    if most.number() < 1 {
        out.invalid_as(&most, most.number(), "must be greater than 0");
    }
    if least.is_set() && most.number() < least.number() {
        out.invalid_as(&most, most.number(), "must be greater than or equal to `minReplicas`");
    }
    reference(&spec.get("scaleTargetRef"), out);
    spec.get("metrics").items().for_each(|metric_spec| metric(&metric_spec, out));
    for direction in ["scaleUp", "scaleDown"] {
        if let Some(rules) = spec.get("behavior").get(direction).set() {
            scaling(&rules, out);
        }
    }
}

fn reference(at: &At<'_>, out: &mut Errors) {
    for field in ["kind", "name"] {
        let at = at.get(field);
        if out.needed(&at) {
            out.all(&at, formats::path_segment(at.text()));
        }
    }
}

fn metric(at: &At<'_>, out: &mut Errors) {
    let kind = at.get("type");
    if kind.text().is_empty() {
        out.required(&kind, "must specify a metric source type");
    }
    let expected = KINDS.iter().find(|(name, _)| *name == kind.text()).map(|(_, field)| *field);
    if expected.is_none() {
        let supported = ["ContainerResource", "External", "Object", "Pods", "Resource"];
        out.not_supported(&kind, &supported);
    }
    let mut present: Vec<At<'_>> =
        KINDS.iter().filter_map(|(_, field)| at.get(field).set()).collect();
    if let Some(first) = present.first() {
        let field = KINDS.iter().find(|(_, field)| at.get(field).path == first.path);
        source(first, field.map_or("", |(_, field)| field), out);
    }
    if let Some(field) = expected {
        let own = at.get(field);
        if !own.is_set() {
            out.required(&own, "must populate information for the given metric source");
        }
        if present.len() != 1 {
            present.retain(|source| source.path != own.path);
            for other in present {
                out.forbidden(&other, "must populate the given metric source only");
            }
        }
    }
}

fn source(at: &At<'_>, field: &str, out: &mut Errors) {
    match field {
        "object" => reference(&at.get("describedObject"), out),
        "resource" | "containerResource" => {
            for (name, why) in [
                ("name", "must specify a resource name"),
                ("container", "must specify a container name"),
            ] {
                let wanted = name == "name" || field == "containerResource";
                if wanted && at.get(name).text().is_empty() {
                    out.required(&at.get(name), why);
                }
            }
        }
        _ => {}
    }
    if !field.ends_with("esource") {
        let name = at.get("metric.name");
        match name.text() {
            "" => out.required(&name, "must specify a metric name"),
            text => out.all(&name, formats::path_segment(text)),
        }
    }
    let goal = at.get("target");
    target(&goal, out);
    let (value, average) = (goal.get("value"), goal.get("averageValue"));
    let percent = goal.get("averageUtilization");
    match field {
        "pods" if !is_positive(&average) => {
            out.required(&average, "must specify a positive target averageValue");
        }
        "object" | "external" if !value.is_set() && !average.is_set() => {
            out.required(&average, EITHER);
        }
        "external" if value.is_set() && average.is_set() => {
            let why = "may not set both a target value for metric and a per-pod target";
            out.forbidden(&value, why);
        }
        "resource" | "containerResource" => match (percent.is_set(), average.is_set()) {
            (false, false) => {
                let why = "must set either a target raw value or a target utilization";
                out.required(&percent, why);
            }
            (true, true) => {
                let why = "may not set both a target raw value and a target utilization";
                out.forbidden(&average, why);
            }
            _ => {}
        },
        _ => {}
    }
}

fn is_positive(at: &At<'_>) -> bool {
    at.quantity().is_some_and(|amount| !amount.is_negative() && !amount.is_zero())
}

fn target(at: &At<'_>, out: &mut Errors) {
    let kind = at.get("type");
    if kind.text().is_empty() {
        out.required(&kind, "must specify a metric target type");
    }
    if !matches!(kind.text(), "Utilization" | "Value" | "AverageValue") {
        let why = "must be either Utilization, Value, or AverageValue";
        out.invalid_as(&kind, kind.text(), why);
    }
    for field in ["value", "averageValue"] {
        let amount = at.get(field);
        if amount.is_set() && !is_positive(&amount) {
            out.invalid(&amount, "must be positive");
        }
    }
    let percent = at.get("averageUtilization");
    if percent.is_set() && percent.number() < 1 {
        out.invalid(&percent, "must be greater than 0");
    }
}

fn scaling(at: &At<'_>, out: &mut Errors) {
    let window = at.get("stabilizationWindowSeconds");
    if window.number() < 0 {
        out.invalid(&window, "must be greater than or equal to zero");
    }
    if window.number() > WINDOW_MAX_SECONDS {
        let why = format!("must be less than or equal to {WINDOW_MAX_SECONDS}");
        out.invalid(&window, why);
    }
    out.one_of_if_set(&at.get("selectPolicy"), &["Disabled", "Max", "Min"]);
    let policies = at.get("policies");
    if policies.len() == 0 {
        out.required(&policies, "must specify at least one Policy");
    }
    for policy in policies.items() {
        let (kind, value) = (policy.get("type"), policy.get("value"));
        if !matches!(kind.text(), "Pods" | "Percent") {
            out.not_supported(&kind, &["Percent", "Pods"]);
        }
        let period = policy.get("periodSeconds");
        for at in [&value, &period] {
            if at.number() <= 0 {
                out.invalid_as(at, at.number(), "must be greater than zero");
            }
        }
        if period.number() > PERIOD_MAX_SECONDS {
            let why = format!("must be less than or equal to {PERIOD_MAX_SECONDS}");
            out.invalid(&period, why);
        }
    }
}

/// The status of a HorizontalPodAutoscaler.
pub(super) fn status(new: &At<'_>, _: &At<'_>, out: &mut Errors) {
    for field in ["currentReplicas", "desiredReplicas"] {
        out.not_negative(&new.get("status").get(field));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::created;

    #[test]
    fn autoscalers() {
        let with = |rest: &str| {
            format!("spec: {{maxReplicas: 2, scaleTargetRef: {{kind: D, name: d}}, {rest}}}")
        };
        created(
            "autoscaling/horizontalpodautoscalers",
            &[
                (&with(""), ""),
                (
                    "spec: {minReplicas: 0}",
                    r#"spec.minReplicas: Invalid value: 0: must be greater than or equal to 1
                       spec.maxReplicas: Invalid value: 0: must be greater than 0
                       spec.scaleTargetRef.kind: Required value
                       spec.scaleTargetRef.name: Required value"#,
                ),
                (
                    &with(
                        "metrics: [{}, {type: Pods, resource: {target: {}}}, {type: External, external: {metric: {name: a/b}, target: {type: Value, value: 0}}}, {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 0, averageValue: 1}}, pods: {}}]",
                    ),
                    r#"spec.metrics[0].type: Required value: must specify a metric source type
                       spec.metrics[0].type: Unsupported value: "": supported values: "ContainerResource", "External", "Object", "Pods", "Resource"
                       spec.metrics[1].resource.name: Required value: must specify a resource name
                       spec.metrics[1].resource.target.type: Required value: must specify a metric target type
                       spec.metrics[1].resource.target.type: Invalid value: "": must be either Utilization, Value, or AverageValue
                       spec.metrics[1].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization
                       spec.metrics[1].pods: Required value: must populate information for the given metric source
                       spec.metrics[2].external.metric.name: Invalid value: "a/b": may not contain '/'
                       spec.metrics[2].external.target.value: Invalid value: 0: must be positive
                       spec.metrics[3].pods.metric.name: Required value: must specify a metric name
                       spec.metrics[3].pods.target.type: Required value: must specify a metric target type
                       spec.metrics[3].pods.target.type: Invalid value: "": must be either Utilization, Value, or AverageValue
                       spec.metrics[3].pods.target.averageValue: Required value: must specify a positive target averageValue
                       spec.metrics[3].pods: Forbidden: must populate the given metric source only"#,
                ),
                (
                    &with(
                        "behavior: {scaleUp: {stabilizationWindowSeconds: 3601, selectPolicy: X, policies: [{type: Odd, value: 0, periodSeconds: 1801}]}, scaleDown: {policies: []}}",
                    ),
                    r#"spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600
                       spec.behavior.scaleUp.selectPolicy: Unsupported value: "X": supported values: "Disabled", "Max", "Min"
                       spec.behavior.scaleUp.policies[0].type: Unsupported value: "Odd": supported values: "Percent", "Pods"
                       spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero
                       spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800
                       spec.behavior.scaleDown.policies: Required value: must specify at least one Policy"#,
                ),
            ],
        );
    }
}
