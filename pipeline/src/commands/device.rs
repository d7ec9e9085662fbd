//! `pipeline device`: what training can run on here, and why not on more.

use ::train::{Device, Products};
use report::Cell;

use crate::{
    cli::Rows,
    exit::Exit,
    output::{explanations, text},
    provenance,
};

/// Lists the processor and all that was looked for on behalf of a GPU.
pub fn run(to: &Rows) -> anyhow::Result<Exit> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let row = |what: &str, found: String, usable: bool| {
        vec![text(what), text(if usable { "usable" } else { "refused" }), Cell::Text(found)]
    };
    let bf16 = match ::train::bf16_products() {
        Products::Tiles => "in 16 bits by tiles (AMX), two to three times as fast as f32 for AlexNet",
        Products::Vectors => "in 16 bits, faster than f32",
        Products::Emulated => "without instructions for it, slower than f32",
    };
    let processor = format!("{}, {cores} threads, precisions f32, bf16 ({bf16})", provenance::cpu());
    let mut table = vec![row("processor", processor, true)];
    table.extend(Device::survey().into_iter().map(|finding| row(finding.what, finding.found, finding.usable)));
    let auto = match Device::resolve(plan::Device::Auto)? {
        Device::Cpu => "the processor".to_owned(),
        device => device.description(),
    };
    table.push(row("train.device = auto", auto, true));
    explanations(&["what", "state", "found"], &[30, 10, 78], &table, to)?;
    Ok(Exit::Fine)
}
