use std::time::Instant;
struct P(Instant);
impl train::Sink for P { fn event(&mut self, e: train::Event) -> Result<(), train::SinkError> { match e { train::Event::Epoch(r) => println!("{:?} at {:.1}", r.clone().validation.map(|v| (r.epoch, r.train_loss, r.train_top1, v.loss, v.top1, r.images_per_second)), self.0.elapsed().as_secs_f64()), train::Event::Tested(t) => println!("test {} {}", t.evaluation.loss, t.evaluation.top1), train::Event::Started{memory_bytes,..} => println!("mem {memory_bytes}"), _ => {} } Ok(()) } }
fn main() {
    let overrides: Vec<String> = std::env::args().skip(3).collect();
    let e = plan::Experiment::load(std::path::Path::new(&std::env::args().nth(1).unwrap()), &overrides).unwrap();
    let threads: usize = std::env::args().nth(2).unwrap().parse().unwrap();
    let t = e.trials();
    println!("{} trials; running {}", t.len(), t[0].label());
    let d = dataset::prepare(&t[0].settings.dataset, std::path::Path::new("/tmp/cache"), &|_| {}).unwrap();
    let o = train::run(&t[0], &d, &train::Options{threads, folder: None}, &mut P(Instant::now()), &train::Stop::new()).unwrap();
    if let train::Outcome::Finished(s) = o { println!("{:?} {} {}", s.best_epoch, s.train_seconds, s.memory_bytes); }
}
