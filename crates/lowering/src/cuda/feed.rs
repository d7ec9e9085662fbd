//! Batches on their way to a session, and what came of them on the way back.
//!
//! A batch is words in pinned memory: what the step's states are to hold, labels, and either the images or how they are cut out of
//! [`Images`] on the device. There are two such rooms. While the device works on one batch, the next is written into the other room and
//! copied by a stream of its own; events keep the three from overtaking each other. Nobody waits for a step: its loss and ranks stay on the
//! device, in a list that is read once in a while.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use graph::State;

use super::{
    CudaError, Device, Images, SAMPLE_WORDS, Session,
    library::{Allocation, Event, Function, Given, Module, Pinned, Stream},
    source::THREADS,
};

/// Steps whose results are kept on the device before they must be read.
const MOST_STEPS: usize = 64;
/// Images that a sample is blended of at most.
const MOST_PARTS: usize = 2;
/// States that a batch can bring.
const MOST_STATES: usize = 4;

/// One of the two rooms.
struct Room {
    pinned: Pinned,
    memory: Allocation,
    /// Marked when the words are on the device: then the host may write the next ones.
    copied: Event,
    /// Marked when the step has read them: then the next copy may be made.
    used: Event,
}

impl Room {
    fn new(device: &Device, words: usize) -> Result<Self, CudaError> {
        let driver = &device.driver;
        let memory = device.allocate(words * size_of::<u32>())?;
        let made = || -> Result<_, CudaError> {
            let pinned = device.note(driver.pinned(words))?;
            let events = driver.marker().and_then(|copied| Ok((copied, driver.marker()?)));
            let (copied, used) = device.note(events).inspect_err(|_| driver.free_pinned(&pinned))?;
            Ok((pinned, copied, used))
        };
        let (pinned, copied, used) = made().inspect_err(|_| driver.free(&memory))?;
        Ok(Self { pinned, memory, copied, used })
    }
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq)]
pub struct StepResult {
    /// Mean loss of the batch.
    pub loss: f32,
    /// For each row, how many classes scored higher than its own, ties going to the lower class; none where its score was NaN.
    pub ahead: Vec<Option<u32>>,
}

/// Functions of the feed's program.
struct Kernels {
    module: Module,
    hand_out: Function,
    rank_rows: Function,
    /// For samples of one image and of two, where there are images.
    cut: Vec<Function>,
}

/// Batches for the programs of one session.
pub struct Feed {
    session: Rc<RefCell<Session>>,
    device: Arc<Device>,
    copies: Stream,
    rooms: Vec<Room>,
    /// The room that is written next; the other one holds what was sent.
    next: usize,
    kernels: Kernels,
    images: Option<Arc<Images>>,
    /// C, and h·w, of the samples that are cut out of them.
    sample: (usize, usize),
    results: Option<Allocation>,
    /// Words of a step in the list: its loss, then its rows.
    stride: usize,
    /// Rows of each step in the list.
    noted: Vec<usize>,
}

/// The feed's program: `classes` are the logits' columns, `samples` the images' shape [M, C, H, W] and the size [h, w] that is cut out.
pub fn feed_source(classes: usize, samples: Option<([usize; 4], [usize; 2])>) -> String {
    let head = format!("extern \"C\" __global__ void __launch_bounds__({THREADS})");
    let mut source = [include_str!("kernels/prelude.cu"), include_str!("kernels/batch.cu")].join("\n");
    source += &format!(
        "\n{head} hand_out_words(const unsigned* words, unsigned* a, int as, unsigned* b, int bs, unsigned* c, int cs, unsigned* d, int \
         ds) {{ hand_out(words, a, as, b, bs, c, cs, d, ds); }}\n{head} rank(const float* logits, const unsigned* labels, const float* \
         loss, unsigned* record) {{ rank_rows<{classes}>(logits, labels, loss, record); }}\n"
    );
    if let Some(([_, c, image_h, image_w], [h, w])) = samples {
        for parts in 1..=MOST_PARTS {
            source += &format!(
                "{head} cut_{parts}(const unsigned char* images, const unsigned* samples, float* out) {{ cut_samples<Cut<{c}, {image_h}, \
                 {image_w}, {h}, {w}, {parts}>>(images, samples, out); }}\n"
            );
        }
    }
    source
}

impl Kernels {
    fn load(device: &Device, classes: usize, samples: Option<([usize; 4], [usize; 2])>) -> Result<Self, CudaError> {
        let module = device.load(&feed_source(classes, samples))?;
        let find = |name: &str| device.note(device.driver.function(&module, name));
        let found = (|| {
            let parts = if samples.is_some() { MOST_PARTS } else { 0 };
            let cut = (1..=parts).map(|parts| find(&format!("cut_{parts}"))).collect::<Result<_, _>>()?;
            Ok((find("hand_out_words")?, find("rank")?, cut))
        })();
        match found {
            Ok((hand_out, rank_rows, cut)) => Ok(Self { module, hand_out, rank_rows, cut }),
            Err(error) => {
                device.driver.unload_module(&module);
                Err(error)
            }
        }
    }
}

impl Feed {
    /// A feed for steps of `classes` logits. With `images`, samples of `size` [h, w] can be cut out of them.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn new(
        session: &Rc<RefCell<Session>>,
        classes: usize,
        images: Option<(Arc<Images>, [usize; 2])>,
    ) -> Result<Self, CudaError> {
        let device = Arc::clone(session.borrow().device());
        device.bind()?;
        let samples = images.as_ref().map(|(images, size)| (images.shape(), *size));
        if let Some((images, _)) = &images {
            assert!(images.is_on(&device), "images and session are on one device");
        }
        let kernels = Kernels::load(&device, classes, samples)?;
        let copies = match device.note(device.driver.stream()) {
            Ok(stream) => stream,
            Err(error) => {
                device.driver.unload_module(&kernels.module);
                return Err(error);
            }
        };
        Ok(Self {
            session: Rc::clone(session),
            device,
            copies,
            rooms: Vec::new(),
            next: 0,
            kernels,
            images: images.map(|(images, _)| images),
            sample: samples.map_or((0, 0), |([_, c, ..], [h, w])| (c, h * w)),
            results: None,
            stride: 0,
            noted: Vec::new(),
        })
    }

    /// Whether samples can be cut out of images on the device.
    pub fn has_images(&self) -> bool {
        self.images.is_some()
    }

    /// Memory that a feed takes on the device for batches of at most so many words and rows, in bytes.
    pub fn device_bytes(words: usize, rows: usize) -> usize {
        (2 * words + MOST_STEPS * (1 + rows)) * size_of::<u32>()
    }

    /// Room for a batch of so many words, which is the host's until [`Self::send`]. Waits until what was written there before is on the
    /// device.
    ///
    /// # Errors
    /// When there is no memory, or the device is lost.
    pub fn room(&mut self, words: usize) -> Result<&mut [u32], CudaError> {
        self.device.bind()?;
        if self.rooms.first().is_none_or(|room| room.pinned.words() < words) {
            self.clear();
            for _ in 0..2 {
                // One room without the other is none.
                let room = Room::new(&self.device, words).inspect_err(|_| self.clear())?;
                self.rooms.push(room);
            }
        }
        let room = &mut self.rooms[self.next];
        self.device.note(self.device.driver.wait_for(&room.copied))?;
        Ok(&mut room.pinned.room()[..words])
    }

    /// Gives the rooms back, once nothing is on its way.
    fn clear(&mut self) {
        // On a lost device these fail, and the driver takes all back with the process.
        let driver = &self.device.driver;
        let _ = driver.synchronize(&self.copies);
        let _ = self.session.borrow_mut().wait();
        for room in self.rooms.drain(..) {
            driver.free_pinned(&room.pinned);
            driver.free(&room.memory);
            driver.destroy_event(&room.copied);
            driver.destroy_event(&room.used);
        }
        self.next = 0;
    }

    /// Queues the copy of the room's first words; what the session runs from now on comes after it. The words go to the states given, one
    /// after the other; a program finds them there as if the host had written them. Then the other room is to be written.
    ///
    /// # Errors
    /// When there is no memory, or the device is lost.
    ///
    /// # Panics
    /// Without [`Self::room`], or if there are more than four states.
    pub fn send(&mut self, words: usize, states: &[&State]) -> Result<(), CudaError> {
        assert!(states.len() <= MOST_STATES, "a batch brings at most {MOST_STATES} states");
        let session = &mut *self.session.borrow_mut();
        let (device, driver) = (&self.device, &self.device.driver);
        let room = &self.rooms[self.next];
        device.note(driver.order(&self.copies, &room.used))?;
        device.note(driver.upload_pinned(&room.memory, &room.pinned, words, &self.copies))?;
        device.note(driver.mark(&room.copied, &self.copies))?;
        device.note(driver.order(session.stream(), &room.copied))?;
        self.next = 1 - self.next;
        if states.is_empty() {
            return Ok(());
        }
        let mut given = vec![Given::Address(room.memory.address(0))];
        let mut handed = 0;
        for place in 0..MOST_STATES {
            let (address, elements) = match states.get(place) {
                Some(state) => (session.overwritten(state)?, state.elements()),
                None => (0, 0),
            };
            given.extend([Given::Address(address), Given::Int(i32::try_from(elements).expect("states are small"))]);
            handed += elements;
        }
        assert!(handed <= words, "what is handed out was sent");
        let blocks = handed.div_ceil(THREADS).max(1) as u32;
        device.note(driver.launch(self.kernels.hand_out, [blocks, 1, 1], THREADS as u32, &given, session.stream()))
    }

    /// The room that was sent last.
    fn sent(&self) -> &Room {
        &self.rooms[1 - self.next]
    }

    /// Cuts `images` [N, C, h, w] out of those on the device, as N·`parts` times [`SAMPLE_WORDS`] words tell, which begin at word `at` of what was sent.
    ///
    /// # Errors
    /// When there is no memory, or the device is lost.
    ///
    /// # Panics
    /// Without images, or if the samples are not all there.
    pub fn cut(&mut self, at: usize, parts: usize, images: &State) -> Result<(), CudaError> {
        let source = self.images.as_ref().expect("there are images");
        let (count, threads) = (images.shape()[0], images.shape()[2] * images.shape()[3]);
        let room = self.sent();
        assert!((at + count * parts * SAMPLE_WORDS) * size_of::<u32>() <= room.memory.bytes, "the samples were sent");
        assert_eq!((images.shape()[1], threads), self.sample, "images must be [N, C, h, w]");
        let session = &mut *self.session.borrow_mut();
        let given = [source.address(), room.memory.address(at), session.overwritten(images)?].map(Given::Address);
        let grid = [count as u32, threads.div_ceil(THREADS) as u32, 1];
        let driver = &self.device.driver;
        let function = self.kernels.cut[parts - 1];
        self.device.note(driver.launch(function, grid, THREADS as u32, &given, session.stream()))
    }

    /// After the step: notes its loss and how its logits [N, K] rank the labels, which begin at word `labels` of what was sent.
    ///
    /// # Errors
    /// When there is no memory, or the device is lost.
    ///
    /// # Panics
    /// If the results must be read first, or no step has been run.
    pub fn note(&mut self, labels: usize, loss: &State, logits: &State) -> Result<(), CudaError> {
        assert!(!self.is_full(), "the results must be read first");
        let rows = logits.shape()[0];
        if 1 + rows > self.stride {
            assert!(self.noted.is_empty(), "the results must be read before larger batches come");
            self.session.borrow_mut().wait()?;
            if let Some(old) = self.results.take() {
                self.device.driver.free(&old);
            }
            self.stride = 1 + rows;
            self.results = Some(self.device.allocate(MOST_STEPS * self.stride * size_of::<u32>())?);
        }
        let results = self.results.as_ref().expect("it was just made");
        let session = self.session.borrow();
        let made = |state: &State| session.address(state).expect("a step has been run");
        let given = [
            made(logits),
            self.sent().memory.address(labels),
            made(loss),
            results.address(self.noted.len() * self.stride),
        ]
        .map(Given::Address);
        let driver = &self.device.driver;
        let function = self.kernels.rank_rows;
        self.device.note(driver.launch(function, [rows as u32, 1, 1], THREADS as u32, &given, session.stream()))?;
        drop(session);
        self.noted.push(rows);
        Ok(())
    }

    /// After all that reads what was sent: its place on the device may be filled anew.
    ///
    /// # Errors
    /// When the device is lost.
    pub fn done(&mut self) -> Result<(), CudaError> {
        let session = self.session.borrow();
        self.device.note(self.device.driver.mark(&self.sent().used, session.stream()))
    }

    /// Whether no batch of so many rows can be noted before the results are read.
    pub fn must_be_read(&self, rows: usize) -> bool {
        self.is_full() || (1 + rows > self.stride && !self.noted.is_empty())
    }

    fn is_full(&self) -> bool {
        self.noted.len() == MOST_STEPS
    }

    /// Waits for all steps, and gives what they came to since this was asked last, in order.
    ///
    /// # Errors
    /// When the device is lost.
    pub fn results(&mut self) -> Result<Vec<StepResult>, CudaError> {
        let Some(results) = self.results.as_ref().filter(|_| !self.noted.is_empty()) else { return Ok(Vec::new()) };
        self.device.bind()?;
        let mut words = vec![0; self.noted.len() * self.stride];
        let session = self.session.borrow();
        self.device.note(self.device.driver.download_words(results, &mut words, session.stream()))?;
        let of_step = |(words, rows): (&[u32], usize)| StepResult {
            loss: f32::from_bits(words[0]),
            ahead: words[1..=rows].iter().map(|&ahead| (ahead != u32::MAX).then_some(ahead)).collect(),
        };
        Ok(words.chunks_exact(self.stride).zip(self.noted.drain(..)).map(of_step).collect())
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let _ = self.device.bind();
        self.clear();
        let driver = &self.device.driver;
        if let Some(results) = &self.results {
            driver.free(results);
        }
        driver.destroy_stream(&self.copies);
        driver.unload_module(&self.kernels.module);
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Feed({:?}, {:?})", self.device, self.images)
    }
}
