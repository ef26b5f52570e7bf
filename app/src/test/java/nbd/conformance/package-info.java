/**
 * What the server conforms to, case by case: each option, reply, command, flag and chunk of the
 * protocol, over the wire, on every storage and through every filter ({@link
 * nbd.conformance.Storage}); and the ways in which other servers broke. What a case needs that only
 * one storage can show, such as failures at a chosen place, is tested in {@code nbd.server}.
 */
package nbd.conformance;
