/** Tests of the jar as users get it, together with other programs. */
package nbd.interop;
