//! What the names mean in a program without the feature `cuda`: types without values.

use std::sync::Arc;

use super::card::{Card, StepCapacity};
use crate::backend::{Backend, Begun, KvShape, StepInputs};
use crate::fault::DeviceFault;
use crate::gated_delta_rule::{DeltaLayer, DeltaState};
use crate::moe::{MoeShape, MoeWeights};
use crate::paged_attention::AttentionLayer;
use crate::quant::WeightType;
use crate::sample::{Choice, Pick, SampleRow};
use crate::weight::Weight;

fn absent() -> DeviceFault {
    DeviceFault::NoDevice("this program was built without support for NVIDIA cards".to_owned())
}

/// Why there are no cards.
///
/// # Errors
/// Always: this program was built without them.
pub fn cards() -> Result<Vec<Card>, DeviceFault> {
    Err(absent())
}

/// A device; there is none.
#[derive(Debug)]
pub enum Context {}

impl Context {
    /// Says that there is none.
    ///
    /// # Errors
    /// Always.
    pub fn open(_ordinal: u32) -> Result<Arc<Self>, DeviceFault> {
        Err(absent())
    }

    /// How fast its memory can be read, in GB/s.
    ///
    /// # Errors
    /// None; there is no device.
    pub fn read_bandwidth(self: &Arc<Self>) -> Result<f64, DeviceFault> {
        match **self {}
    }

    /// Free bytes and all bytes.
    pub fn memory(&self) -> (u64, u64) {
        match *self {}
    }

    /// What the card is.
    pub fn card(&self) -> &Card {
        match *self {}
    }
}

/// A backend; there is none.
#[derive(Debug)]
pub enum Cuda {}

impl Cuda {
    /// A backend on a device.
    pub fn new(context: &Arc<Context>, _capacity: StepCapacity) -> Self {
        match **context {}
    }

    /// Runs every step launch by launch.
    pub fn without_graphs(self) -> Self {
        match self {}
    }

    /// How many sizes of steps are recorded.
    pub fn recorded_sizes(&self) -> usize {
        match *self {}
    }
}

impl Backend for Cuda {
    type Tensor = Self;
    type Matrix = Self;
    type Vector = Self;
    type KvCache = Self;
    type State = Self;
    type Mixture = Self;

    fn matrix_bytes(_: WeightType, _: usize, _: usize) -> u64 {
        0
    }

    fn matrix(&mut self, _: &Weight) -> Self {
        match *self {}
    }

    fn vector(&mut self, _: &[f32]) -> Self {
        match *self {}
    }

    fn mixture(&mut self, _: &MoeShape, _: &MoeWeights<Weight>) -> Self {
        match *self {}
    }

    fn tensor(&mut self, _: usize, _: usize) -> Self {
        match *self {}
    }

    fn kv_cache(&mut self, _: KvShape) -> Self {
        match *self {}
    }

    fn state(&mut self, _: usize, _: usize) -> Self {
        match *self {}
    }

    fn copy_block(&mut self, _: &mut Self, _: usize, _: usize) {
        match *self {}
    }

    fn copy_state(&mut self, _: &mut Self, _: usize, _: usize) {
        match *self {}
    }

    fn block_bytes(&self, _: &Self) -> usize {
        match *self {}
    }

    fn state_bytes(&self, _: &Self) -> usize {
        match *self {}
    }

    fn save_block(&mut self, _: &Self, _: usize, _: &mut [u8]) {
        match *self {}
    }

    fn load_block(&mut self, _: &mut Self, _: usize, _: &[u8]) {
        match *self {}
    }

    fn save_state(&mut self, _: &Self, _: usize, _: &mut [u8]) {
        match *self {}
    }

    fn load_state(&mut self, _: &mut Self, _: usize, _: &[u8]) {
        match *self {}
    }

    fn begin_step(&mut self, _: StepInputs) -> Begun {
        match *self {}
    }

    fn read(&mut self, _: &Self, _: usize) -> Vec<f32> {
        match *self {}
    }

    fn write(&mut self, _: &mut Self, _: &[f32]) {
        match *self {}
    }

    fn embed(&mut self, _: &Self, _: &mut Self) {
        match *self {}
    }

    fn norm_project(&mut self, _: &Self, _: &Self, _: f32, _: &[Self], _: &mut Self) {
        match *self {}
    }

    fn project(&mut self, _: &Self, _: &Self, _: &mut Self) {
        match *self {}
    }

    fn project_add(&mut self, _: &Self, _: &Self, _: &mut Self) {
        match *self {}
    }

    fn add(&mut self, _: &Self, _: &mut Self) {
        match *self {}
    }

    fn attention(&mut self, _: &AttentionLayer<Self>, _: &mut Self, _: &mut Self, _: &mut Self) {
        match *self {}
    }

    fn delta_layer(&mut self, _: DeltaLayer<Vec<f32>>) -> DeltaLayer<Self> {
        match *self {}
    }

    fn delta_net(
        &mut self,
        _: &DeltaLayer<Self>,
        _: &mut Self,
        _: &mut DeltaState<Self>,
        _: &mut Self,
    ) {
        match *self {}
    }

    fn swiglu(&mut self, _: &Self, _: &mut Self) {
        match *self {}
    }

    fn moe(&mut self, _: &Self, _: &Self, _: (&Self, f32), _: &mut Self) {
        match *self {}
    }

    fn logits(&mut self, _: &Self, _: &Self, _: f32, _: &Self, _: &mut Self) {
        match *self {}
    }

    fn sample(&mut self, _: &mut Self, _: usize, _: &[SampleRow]) -> Vec<Option<Choice>> {
        match *self {}
    }

    fn gains_by_running_ahead(&self) -> bool {
        match *self {}
    }

    fn start_sample(&mut self, _: &mut Self, _: usize, _: &[SampleRow]) {
        match *self {}
    }

    fn finish_sample(&mut self) -> Vec<Pick> {
        match *self {}
    }
}
