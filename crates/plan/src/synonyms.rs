//! What other programs (PyTorch, Keras, Optuna, Weights & Biases, Ray Tune) call the keys and values of experiment files.

/// Names of keys, and the key paths that they stand for.
const KEYS: [(&str, &str); 90] = [
    ("lr", "train.learning_rate"),
    ("eta", "train.learning_rate"),
    ("wd", "train.weight_decay"),
    ("l2", "train.weight_decay"),
    ("lambda", "train.weight_decay"),
    ("regularization", "train.weight_decay"),
    ("bs", "train.batch_size"),
    ("batch", "train.batch_size"),
    ("num_epochs", "train.epochs"),
    ("n_epochs", "train.epochs"),
    ("max_epochs", "train.epochs"),
    ("beta1", "train.momentum"),
    ("betas", "train.beta2"),
    ("lr_schedule", "train.schedule"),
    ("lr_scheduler", "train.schedule"),
    ("scheduler", "train.schedule"),
    ("warmup", "train.schedule.warmup_epochs"),
    ("warmup_epochs", "train.schedule.warmup_epochs"),
    ("clip", "train.gradient_clip"),
    ("grad_clip", "train.gradient_clip"),
    ("clipnorm", "train.gradient_clip"),
    ("clip_grad_norm", "train.gradient_clip"),
    ("max_grad_norm", "train.gradient_clip"),
    ("ema", "train.average_decay"),
    ("ema_decay", "train.average_decay"),
    ("amp", "train.precision"),
    ("dtype", "train.precision"),
    ("mixed_precision", "train.precision"),
    ("pretrained", "train.initial_weights"),
    ("weights", "train.initial_weights"),
    ("checkpoint", "train.initial_weights"),
    ("frozen", "train.freeze"),
    ("freeze_layers", "train.freeze"),
    ("trainable", "train.freeze"),
    ("requires_grad", "train.freeze"),
    ("early_stopping", "sweep.pruner"),
    ("early_stop", "sweep.pruner"),
    ("early_terminate", "sweep.pruner"),
    ("patience", "sweep.pruner"),
    ("pruning", "sweep.pruner"),
    ("metric", "sweep.objective"),
    ("goal", "sweep.objective"),
    ("direction", "sweep.objective"),
    ("monitor", "sweep.objective"),
    ("method", "sweep.sampler.kind"),
    ("algorithm", "sweep.sampler.kind"),
    ("strategy", "sweep.sampler.kind"),
    ("n_trials", "sweep.sampler.configurations"),
    ("num_trials", "sweep.sampler.configurations"),
    ("num_samples", "sweep.sampler.configurations"),
    ("trials", "sweep.sampler.configurations"),
    ("parameters", "sweep.space"),
    ("params", "sweep.space"),
    ("search_space", "sweep.space"),
    ("timeout", "sweep.minutes"),
    ("arch", "model.architecture"),
    ("network", "model.architecture"),
    ("model_name", "model.architecture"),
    ("bn", "model.normalization"),
    ("batch_norm", "model.normalization"),
    ("norm", "model.normalization"),
    ("init", "model.initialization"),
    ("width_mult", "model.width"),
    ("nonlinearity", "model.activation"),
    ("hflip", "augment.flip"),
    ("horizontal_flip", "augment.flip"),
    ("random_flip", "augment.flip"),
    ("random_horizontal_flip", "augment.flip"),
    ("rotate", "augment.rotation_degrees"),
    ("degrees", "augment.rotation_degrees"),
    ("padding", "augment.pad"),
    ("random_crop", "augment.crop"),
    ("random_resized_crop", "augment.resized_crop"),
    ("zoom", "augment.scale"),
    ("color_jitter", "augment.brightness"),
    ("random_erasing", "augment.cutout"),
    ("erasing", "augment.cutout"),
    ("val_split", "dataset.validation_fraction"),
    ("validation_split", "dataset.validation_fraction"),
    ("val_fraction", "dataset.validation_fraction"),
    ("test_split", "dataset.test_fraction"),
    ("grayscale", "dataset.color"),
    ("channels", "dataset.color"),
    ("resize", "dataset.image_size"),
    ("image_path", "dataset.path"),
    ("root", "dataset.path"),
    ("dir", "dataset.path"),
    ("folder", "dataset.path"),
    ("subset", "dataset.train_images"),
    ("limit", "dataset.train_images"),
];

/// Names that mean something else in each table.
const WITHIN: [(&str, &str, &str); 14] = [
    ("dataset", "name", "source"),
    ("dataset", "kind", "source"),
    ("dataset", "type", "source"),
    ("model", "name", "architecture"),
    ("model", "kind", "architecture"),
    ("model", "type", "architecture"),
    ("schedule", "name", "kind"),
    ("schedule", "type", "kind"),
    ("schedule", "step_size", "every_epochs"),
    ("schedule", "gamma", "factor"),
    ("schedule", "patience", "patience_epochs"),
    ("schedule", "eta_min", "minimum"),
    ("schedule", "milestones", "steps"),
    ("pruner", "patience", "patience_epochs"),
];

/// Values by other names; only those of the key that is set are offered.
const VALUES: [(&str, &str); 30] = [
    ("mnist", "idx"),
    ("fashion-mnist", "idx"),
    ("fashion_mnist", "idx"),
    ("folder", "images"),
    ("imagefolder", "images"),
    ("ilsvrc2012", "imagenet"),
    ("gpu", "cuda"),
    ("grayscale", "gray"),
    ("fp16", "bf16"),
    ("float16", "bf16"),
    ("half", "bf16"),
    ("bfloat16", "bf16"),
    ("fp32", "f32"),
    ("float32", "f32"),
    ("momentum", "sgd"),
    ("logistic", "sigmoid"),
    ("lrn", "local-response"),
    ("batchnorm", "batch"),
    ("kaiming", "he"),
    ("glorot", "xavier"),
    ("multistep", "table"),
    ("reduce_on_plateau", "plateau"),
    ("asha", "halving"),
    ("early_stopping", "patience"),
    ("bayes", "tpe"),
    ("bayesian", "tpe"),
    ("cma", "cma-es"),
    ("accuracy", "validation_top1"),
    ("val_accuracy", "validation_top1"),
    ("val_loss", "validation_loss"),
];

/// The key path that a name in a table stands for elsewhere.
pub(crate) fn key(table: &[String], name: &str) -> Option<String> {
    let name = name.to_lowercase().replace('-', "_");
    let within = WITHIN.iter().find(|(of, other, _)| table.last().is_some_and(|last| last == of) && *other == name);
    if let Some((_, _, meant)) = within {
        return Some(table.iter().map(String::as_str).chain([*meant]).collect::<Vec<_>>().join("."));
    }
    KEYS.iter().find(|(other, _)| *other == name).map(|(_, path)| (*path).to_owned())
}

/// The value that another name stands for, if it is among those that a key takes.
pub(crate) fn value<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    let (_, meant) = VALUES.iter().find(|(other, _)| *other == name.to_lowercase())?;
    names.iter().copied().find(|name| name == meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_synonym_leads_to_a_key_that_exists_and_is_none_itself() {
        let exists = |path: &str| crate::keys().iter().any(|key| key.path == path);
        for (name, path) in KEYS {
            assert!(exists(path), "{name} → {path}");
            let section = path.split_once('.').unwrap().0;
            assert!(!exists(&format!("{section}.{name}")), "{name} is a key of {section}");
        }
        for (table, name, meant) in WITHIN {
            let path = match table {
                "schedule" => format!("train.schedule.{meant}"),
                "pruner" => format!("sweep.pruner.{meant}"),
                section => format!("{section}.{meant}"),
            };
            assert!(exists(&path), "{table}.{name} → {path}");
        }
        for (name, meant) in VALUES {
            let takes = |values: &str| values.split([' ', ',']).any(|word| word == meant);
            assert!(crate::keys().iter().any(|key| takes(key.values) || takes(key.meaning)), "{name} → {meant}");
        }
    }
}
